"""Waiting for what a test expects: by asking again, never by time alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def until(ask: Callable[[], Awaitable[T]], what: str, timeout_s: float = 60.0, every_s: float = 0.1) -> T:
    """Ask until the answer is true and return it; TimeoutError names `what` and the last answer otherwise.

    An AssertionError or LookupError of `ask` counts as "not yet", so that a check may be written as in a test.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        last: object
        try:
            last = answer = await ask()
            if answer:
                return answer
        except (AssertionError, LookupError) as error:
            last = error
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s:g} s: {what}; last seen: {last!r}")
        await asyncio.sleep(every_s)
