"""Keys that want a look, each handled by one task at a time however often it is asked for.

What is asked for while its look is under way is looked at once more afterwards: the look may have missed it.
A failing look is repeated with growing pauses; the other keys go on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0


class KeyedQueue(Generic[K]):
    """`handle(key)` looks at a key; it may return after how many seconds to look again. It raises what must be retried;
    `failed(key, error)` hears of it.
    """

    def __init__(
        self,
        handle: Callable[[K], Awaitable[float | None]],
        *,
        workers: int,
        failed: Callable[[K, Exception], None],
    ) -> None:
        self._handle = handle
        self._workers = workers
        self._failed = failed
        self._ready: deque[K] = deque()
        self._waiting: set[K] = set()
        self._busy: set[K] = set()
        self._again: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        """Return how many keys wait for a look that is due."""
        return len(self._ready) + len(self._again)

    def add(self, key: K) -> None:
        """Look at `key` as soon as possible."""
        self._cancel(key)
        if key in self._busy:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.append(key)
            self._wake.set()

    def add_after(self, key: K, delay_s: float) -> None:
        """Look at `key` after so long, or sooner if it was promised so already."""
        due = asyncio.get_running_loop().time() + delay_s
        timer = self._timers.get(key)
        if key in self._waiting or key in self._again or (timer and timer.when() <= due):
            return
        self._cancel(key)
        self._timers[key] = asyncio.get_running_loop().call_at(due, self.add, key)

    async def run(self) -> None:
        """Handle keys until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._workers):
                    group.create_task(self._work())
        finally:
            for key in list(self._timers):
                self._cancel(key)

    async def _work(self) -> None:
        while True:
            while not self._ready:
                self._wake.clear()
                await self._wake.wait()
            key = self._ready.popleft()
            self._waiting.discard(key)
            self._busy.add(key)
            try:
                await self._look(key)
            finally:
                self._busy.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add(key)

    async def _look(self, key: K) -> None:
        try:
            again_s = await self._handle(key)
        except Exception as error:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            self._failed(key, error)
            again_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 32))
        else:
            self._failures.pop(key, None)
        if again_s is not None:
            self.add_after(key, again_s)

    def _cancel(self, key: K) -> None:
        timer = self._timers.pop(key, None)
        if timer:
            timer.cancel()
