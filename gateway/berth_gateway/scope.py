"""A body that something outside may break off: what `asyncio.timeout` does for time, for any reason."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class Scope:
    """`async with Scope() as scope: …`: `scope.interrupt()` cancels the body and the block ends quietly.

    The cancellation is delivered from the loop, never from within the body's own call stack: a body that reaches its
    end before that has reached its end, and nothing of the cancellation leaks into what follows.
    """

    def __init__(self) -> None:
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self.interrupted = False
        """The body was broken off."""

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a scope needs a task")
        self._cancelling = task.cancelling()
        self._task = task
        return self

    def interrupt(self) -> None:
        """Break off the body; once, and nothing after its end."""
        asyncio.get_running_loop().call_soon(self._deliver)

    def _deliver(self) -> None:
        if self._task is not None and not self.interrupted:
            self.interrupted = True
            self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        task, self._task = self._task, None
        if task is None or not self.interrupted:
            return False
        # Uncancel our own cancellation only: one that came from outside as well must go on outwards.
        ours_alone = task.uncancel() <= self._cancelling
        return ours_alone and kind is not None and issubclass(kind, asyncio.CancelledError)
