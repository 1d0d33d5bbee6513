"""One turn: acquire was done, now POST, stream, and move if the worker fails; then commit, or leave no trace.

    acquired ──> attempt ──> finished ──> commit ──> committed
                  │   ▲                     └──────> unknown     (the ledger's word did not come)
                  │   └── refused by the worker (history, stale, duplicate): the next attempt at the same worker
                  ├────── worker failed: suspect it, move, the next attempt elsewhere with the ids so far
                  └──────────────────────────────> aborted       (ordered, client gone, lease lost, no worker left)

A turn runs in a task of its own, so that it may outlive the request that began it. What it tells goes to one listener,
synchronously: it waits for workers and for the ledger, never for a client. What may break it off from outside
(`interrupt`) does so only while it waits for a worker or for capacity; a call to the ledger is never cut in half.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import structlog

from berth_api.errors import BerthError, LedgerUnavailable, NoCapacity
from berth_api.public import TurnMoved, TurnStarted, TurnToken, TurnUnknown, TurnView
from berth_api.wire import Aborted, Finished, Started, StopRequest, TokenLogprob, Tokens, WorkerEvent
from berth_gateway.attempt import OWN_FAULTS, Attempt, Broken, Rejoinder, WrongEnd
from berth_gateway.backends import Backends
from berth_gateway.breaker import Breaker
from berth_gateway.ending import Ending
from berth_gateway.events import pack
from berth_gateway.lease import Lease
from berth_gateway.ledger.errors import FenceLost
from berth_gateway.ledger.records import Acquired, OrderMode
from berth_gateway.logs import log_of
from berth_gateway.output import Listener, Output, PublicEvent
from berth_gateway.work import Work
from berth_gateway.workers import WorkerError, WorkerGone

_Call = Coroutine[Any, Any, float | None]
"""A call to the ledger; what it returns is the lease it was granted, if one was."""


class Turn:
    """Runs once. `begun` is done when a worker accepted the turn or it ended; `ended` holds what it came to.

    Both raise the refusal (a `BerthError`) where the turn was refused before it began.
    """

    def __init__(self, backends: Backends, acquired: Acquired, work: Work, asked_at: float, listener: Listener) -> None:
        self.acquired = acquired
        self.work = work
        self.output = Output()
        self._backends = backends
        self._settings = backends.settings.turn
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self.begun: asyncio.Future[None] = self._loop.create_future()
        self.ended: asyncio.Future[TurnView] = self._loop.create_future()
        self.attempt = Attempt(backends, acquired)
        self._breaker = Breaker()
        self._ending = Ending(backends, work, self.output, self.attempt, self._emit)
        self._started: Started | None = None
        self._left: str | None = None
        self._homeless_since: float | None = None
        self._stop_wanted = False
        self._helpers: set[asyncio.Task[None]] = set()
        self._last_token_at = 0.0
        self._failed: tuple[float, str] | None = None
        """When a worker was lost, and by what, while the client has heard nothing new since."""
        self._lease = Lease(
            lambda: self._loop.create_task(self.attempt.renew()),
            margin=self._settings.lease_margin,
            on_order=self.order,
            on_lost=lambda reason: self.interrupt(Broken(reason)),
        )
        self._lease.granted(asked_at, acquired.lease_s)

    @property
    def _log(self) -> structlog.stdlib.BoundLogger:
        return log_of(self.acquired.fence)

    @property
    def id(self) -> str:
        return self.acquired.fence.turn

    def order(self, mode: OrderMode) -> None:
        """Somebody asked this turn to end: `stop` keeps what was said, `abort` does not."""
        if mode == "abort":
            self.interrupt(Broken("ordered"))
        elif not self._stop_wanted:
            self._stop_wanted = True
            if self.attempt.accepted:
                self._help(self._send_stop())

    def client_gone(self) -> None:
        """Nobody listens any more; only a background turn goes on."""
        if not self.work.background:
            self.interrupt(Broken("client_gone"))

    def interrupt(self, broken: Broken) -> None:
        """End the turn without a result, unless its worker has already finished it. The first reason counts."""
        self._breaker.interrupt(broken)

    async def run(self) -> None:
        """Run to the end. Never raises but by cancellation."""
        metrics = self._backends.metrics
        metrics.running.inc()
        try:
            view = await self._run()
            metrics.turns.labels(view.state).inc()
            metrics.turn_s.observe(self._loop.time() - self.work.arrived)
            self._log.info(
                "turn.ended", state=view.state, reason=view.reason, tokens=self.output.count, moves=view.moves
            )
            _resolve(self.begun, None)
            _resolve(self.ended, view)
        except BerthError as refusal:
            metrics.refused.labels(refusal.type).inc()
            self._log.info("turn.refused", type=refusal.type, detail=refusal.message)
            _fail(self.begun, refusal)
            _fail(self.ended, refusal)
        except Exception:
            self._log.exception("turn.crashed")
            failure = BerthError("the gateway failed on this turn; its log says why")
            self._emit(TurnUnknown(self.id, "internal_error"))
            _fail(self.begun, failure)
            _fail(self.ended, failure)
        finally:
            metrics.running.dec()
            self._lease.end()
            for helper in self._helpers:
                helper.cancel()

    async def _run(self) -> TurnView:
        try:
            finished = await self._generate()
        except Broken as broken:
            return await self._ending.abort(broken, begun=self.begun.done())
        except BerthError as refusal:
            return await self._ending.refuse(refusal, begun=self.begun.done())
        return await self._ending.commit(finished, cached_tokens=self._started.cached_tokens if self._started else 0)

    # Attempts -------------------------------------------------------------------------------------------------------

    async def _generate(self) -> Finished:
        """Return the worker's end of the turn. Raises `Broken`, or the `BerthError` of a turn that cannot run."""
        await self._ledger(self.attempt.prepare)
        while True:
            try:
                finished = await self._attempt()
            except WorkerGone as gone:
                await self._move(gone)
            else:
                if finished is not None:
                    return finished

    async def _attempt(self) -> Finished | None:
        """Return the worker's end of the turn; None: it refused in a way that the next attempt answers."""
        try:
            async with self._breaker.open():
                return await self.attempt.run(self.work, self.output.packed, self._on_accepted, self._on_event)
        except Rejoinder as refused:
            await self._ledger(partial(self.attempt.rejoin, refused))
            return None

    async def _move(self, gone: WorkerGone) -> None:
        """Put the next attempt elsewhere, waiting for capacity since the last worker took it. Raises `Broken`."""
        self._log.warning("turn.worker_failed", worker=self.attempt.worker, reason=gone.reason, detail=str(gone))
        self._backends.metrics.moves.labels(gone.reason).inc()
        ran_there, self.attempt.accepted = self.attempt.accepted, False
        now = self._loop.time()
        self._failed = self._failed or (now, gone.reason)
        if ran_there:
            await self._count_move()
        if ran_there or self._homeless_since is None:
            self._homeless_since = now
        else:
            await self._breaker.pause(self._settings.capacity_pause_s)
        self._left = self._left or self.attempt.worker
        accuse = True
        while True:
            waited_s = self._loop.time() - self._homeless_since
            if waited_s >= self._settings.capacity_wait_s:
                raise Broken("no_capacity")
            try:
                await self._ledger(partial(self.attempt.move, gone, waited_s, accuse=accuse))
            except NoCapacity:
                accuse = False
                await self._breaker.pause(self._settings.capacity_pause_s)
            else:
                break
        await self._ledger(self.attempt.prepare)

    async def _count_move(self) -> None:
        """Only what happens to a turn that ran counts: it may be what kills its workers. Raises `Broken`."""
        policy = self.work.on_worker_failure or self.acquired.on_worker_failure
        if policy == "abort" or self.attempt.moves >= self._settings.max_moves:
            await self.attempt.accuse()
            raise Broken("worker_failed", retry_safe=policy == "abort")
        self.attempt.moves += 1

    async def _ledger(self, call: Callable[[], _Call]) -> None:
        """Do one thing at the ledger, again while it is away: the lease's end decides how long. Raises `Broken`."""
        while True:
            asked_at = self._loop.time()
            try:
                lease_s = await call()
            except FenceLost:
                raise Broken("superseded") from None
            except LedgerUnavailable as error:
                self._log.warning("turn.ledger_unavailable", detail=error.message)
                await self._breaker.pause(self._settings.retry_pause_s)
            else:
                if lease_s is not None:
                    self._lease.granted(asked_at, lease_s)
                return

    # What the worker says -------------------------------------------------------------------------------------------

    def _on_accepted(self) -> None:
        _resolve(self.begun, None)
        if self._stop_wanted:
            self._help(self._send_stop())

    def _on_event(self, event: WorkerEvent) -> Finished | None:
        """Pass on one event; return the end. Raises `WorkerGone` for what a sane worker does not say."""
        match event:
            case Tokens(ids, text, logprobs):
                self._on_tokens(ids, text, logprobs if self.work.logprobs else None)
            case Started():
                self._on_started(event)
            case Finished():
                return self._on_finished(event)
            case Aborted(reason, message):
                self._log.warning("turn.worker_aborted", reason=reason, detail=message)
                if reason in OWN_FAULTS:
                    raise WorkerGone(reason, message)
                raise Broken(reason)
        return None

    def _on_started(self, started: Started) -> None:
        place = self.attempt
        if self._started is None:
            self._started = started
            prompt, cached = started.prompt_tokens, started.cached_tokens
            self._emit(TurnStarted(self.id, place.fence.epoch, place.worker, prompt, cached))
        elif self._left is not None:
            again = max(0, started.prompt_tokens + self.output.count - started.cached_tokens)
            self._emit(TurnMoved(self._left, place.worker, place.fence.attempt, again))
        self._left = None

    def _on_tokens(self, ids: list[int], text: str, logprobs: list[TokenLogprob] | None) -> None:
        if self._started is None:
            raise WorkerGone("garbled", "tokens before the start")
        self.output.add(pack(ids), text, logprobs)
        now = self._loop.time()
        if self._last_token_at:
            self._backends.metrics.next_token_s.observe(now - self._last_token_at)
        else:
            self._backends.metrics.first_token_s.observe(now - self.work.arrived)
        self._last_token_at = now
        self._note_recovery(now)
        self._emit(TurnToken(ids, text, logprobs))

    def _note_recovery(self, now: float) -> None:
        if self._failed is not None:
            since, reason = self._failed
            self._backends.metrics.recovery_s.labels(reason).observe(now - since)
            self._failed = None

    def _on_finished(self, finished: Finished) -> Finished:
        try:
            self.attempt.check(finished, self.work.input_ids, self.output.packed)
        except WrongEnd as error:
            raise WorkerGone("wrong_head", str(error)) from None
        self._note_recovery(self._loop.time())  # where every token had come before
        if finished.text:
            self.output.add(b"", finished.text, None)
            self._emit(TurnToken([], finished.text))
        return finished

    def _emit(self, event: PublicEvent) -> None:
        self._listener(event, self.output)

    async def _send_stop(self) -> None:
        """Tell the worker to finish now; again until it heard, for a moved turn too."""
        while not self.ended.done():
            place = self.attempt
            order = StopRequest(place.fence.uid, self.id, place.fence.epoch, place.fence.attempt)
            try:
                if await self._backends.workers.stop(place.worker, place.url, order):
                    return
            except WorkerError as error:
                self._log.warning("turn.stop_failed", detail=str(error))
            await asyncio.sleep(self._settings.retry_pause_s)

    def _help(self, call: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(call)
        self._helpers.add(task)
        task.add_done_callback(self._helpers.discard)


def _resolve(future: asyncio.Future[Any], value: object) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # somebody may have gone without asking
