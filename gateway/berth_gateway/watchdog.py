"""Tells a worker that thinks from one that is gone: silence first, then its health."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class Watchdog:
    """After `stall_s` without a beat, asks `healthy`; if not, calls `on_dead` once. A beat costs one assignment."""

    def __init__(self, stall_s: float, healthy: Callable[[], Awaitable[bool]], on_dead: Callable[[], None]) -> None:
        self._stall_s = stall_s
        self._healthy = healthy
        self._on_dead = on_dead
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._probe: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(stall_s, self._check)

    def beat(self) -> None:
        """The worker said something that only a running engine says."""
        self._last = self._loop.time()

    def end(self) -> None:
        self._timer.cancel()
        if self._probe is not None:
            self._probe.cancel()

    def _check(self) -> None:
        due = self._last + self._stall_s
        if self._loop.time() < due:
            self._timer = self._loop.call_at(due, self._check)
        else:
            self._probe = self._loop.create_task(self._ask())

    async def _ask(self) -> None:
        asked_at = self._loop.time()
        if await self._healthy() or self._last > asked_at:
            self._timer = self._loop.call_later(self._stall_s, self._check)
        else:
            self._on_dead()
