"""The engine's thread. The event loop asks and hears back; it never waits for a step.

Orders go in by a mailbox and run between steps; their answers come out before the next step, its events after it, each
lot by one `call_soon_threadsafe`. What a caller hears first happened first, and the published state is never older.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from berth_api.errors import BerthError

if TYPE_CHECKING:
    from collections.abc import Callable

    from berth_worker.engine.core import Core
    from berth_worker.engine.requests import Sink
    from berth_worker.engine.stats import State

T = TypeVar("T")
log = structlog.get_logger(__name__)

Order = tuple["Callable[[Core], Any]", "asyncio.Future[Any]"]
Answered = tuple["asyncio.Future[Any]", Any, "BaseException | None"]

FAILED_STEPS_TOLERATED = 3
"""One failed step may be one request's fault; several in a row mean that the backend is broken for good."""


class Engine:
    """Runs a `Core` on a thread of its own."""

    def __init__(self, core: Core, *, tick_s: float = 0.25) -> None:
        """`tick_s`: how often an idle engine looks for sessions to reap."""
        self._core = core
        self._tick_s = tick_s
        self._mailbox: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._main, name="engine", daemon=True)
        self._busy_since: float | None = None
        self._error: BaseException | None = None
        self._stopped = False
        self.state: State = core.state()
        """The latest snapshot."""
        self.quiet = asyncio.Event()
        """Set while nothing is queued or running."""
        self.quiet.set()

    def start(self) -> None:
        """Start the thread. Call it from the event loop that will hear from it."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def ask(self, order: Callable[[Core], T]) -> T:
        """Run `order` between two steps and return what it returns; its `BerthError` is raised here."""
        if self._error is not None or not self._thread.is_alive():
            raise BerthError(f"the engine has failed: {self._error}")
        future: asyncio.Future[T] = self._loop.create_future()
        self._mailbox.put((order, future))
        return await future

    def cancel(self, sink: Sink, reason: str, message: str) -> None:
        """Abort the request whose events go to `sink`, before the next step; nobody waits for it."""
        self._mailbox.put((lambda core: core.cancel(sink, reason, message), self._loop.create_future()))

    async def stop(self) -> None:
        """End the thread after its current step."""
        self._mailbox.put(None)
        await asyncio.to_thread(self._thread.join)

    def trouble(self, step_limit_s: float) -> str | None:
        """Return why the engine is not healthy, None if it is."""
        if self._error is not None:
            return f"the engine has failed: {self._error}"
        if not self._thread.is_alive():
            return "the engine does not run"
        if self.state.failed_steps >= FAILED_STEPS_TOLERATED:
            return f"the last {self.state.failed_steps} steps failed"
        busy_since = self._busy_since
        if busy_since is not None and time.monotonic() - busy_since > step_limit_s:
            return f"a step is overdue: it has taken more than {step_limit_s:g} s"
        return None

    def _main(self) -> None:
        replies: list[Answered] = []
        try:
            while not self._stopped:
                replies = []
                self._obey(replies)
                if self._core.reap():
                    self.state = self._core.state()
                self._publish(replies)
                replies = []
                if not self._core.idle:
                    self._core.step()
                    self._publish(replies)
        except Exception as error:
            log.exception("the engine has failed; its state can no longer be trusted")
            self._error = error
            self._core.give_up(f"the engine has failed: {error}")
            self._publish(replies)
            self._refuse_all()

    def _obey(self, replies: list[Answered]) -> None:
        """Carry out what is in the mailbox; wait for it only if there is nothing else to do."""
        self._busy_since = None
        wait = self._core.idle and not self._core.outbox
        try:
            item = self._mailbox.get(timeout=self._tick_s) if wait else self._mailbox.get_nowait()
            self._busy_since = time.monotonic()
            while item is not None:
                self._carry_out(item, replies)
                item = self._mailbox.get_nowait()
            self._stopped = True
        except queue.Empty:
            self._busy_since = time.monotonic()

    def _carry_out(self, item: Order, replies: list[Answered]) -> None:
        order, future = item
        try:
            replies.append((future, order(self._core), None))
        except BerthError as error:
            replies.append((future, None, error))
        except Exception as error:
            replies.append((future, None, BerthError(f"the engine has failed: {error}")))
            raise

    def _publish(self, replies: list[Answered]) -> None:
        events, self._core.outbox = self._core.outbox, []
        if not replies and not events:
            return
        self.state, quiet = self._core.state(), self._core.idle

        def deliver() -> None:
            self.quiet.set() if quiet else self.quiet.clear()
            for sink, event in events:
                sink.put(event)
            for future, value, error in replies:
                if not future.done():
                    future.set_exception(error) if error is not None else future.set_result(value)
                if error is not None:
                    future.exception()  # told or not: nobody may be waiting any more

        self._loop.call_soon_threadsafe(deliver)

    def _refuse_all(self) -> None:
        """Answer what still comes in: the thread is gone, its callers must not wait for ever."""
        while not self._stopped:
            item = self._mailbox.get()
            if item is None:
                return
            error = BerthError(f"the engine has failed: {self._error}")
            self._publish([(item[1], None, error)])
