"""What may break a turn off from outside, and when: only in the stretches that are open to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from berth_gateway.attempt import Broken
from berth_gateway.scope import Scope


class Breaker:
    """One a turn. A reason that comes between two stretches takes effect at the start of the next."""

    def __init__(self) -> None:
        self._broken: Broken | None = None
        self._scope: Scope | None = None

    def interrupt(self, broken: Broken) -> None:
        """Break off what is open now or next. The first reason counts."""
        if self._broken is None:
            self._broken = broken
            if self._scope is not None:
                self._scope.interrupt()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Inside, an interrupt takes effect at once. Raises `Broken` with its reason."""
        if self._broken is not None:
            raise self._broken
        async with Scope() as scope:
            self._scope = scope
            try:
                yield
            finally:
                self._scope = None
        if scope.interrupted and self._broken is not None:
            raise self._broken

    async def pause(self, seconds: float) -> None:
        """Sleep, open to interrupts. Raises `Broken`."""
        async with self.open():
            await asyncio.sleep(seconds)
