"""Waiting for what another thread or process does: a condition and a deadline, never a fixed time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

DEADLINE_S = 20.0
PAUSE_S = 0.01


async def until(condition: Callable[[], Awaitable[bool]] | Callable[[], bool]) -> None:
    """Return when `condition` holds; TimeoutError if it does not within the deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            held = condition()
            if await held if isinstance(held, Awaitable) else held:
                return
            await asyncio.sleep(PAUSE_S)
