"""How a turn ends: made real at the ledger or undone there, and told only then.

    commit ──> committed            the ledger said so
           ├─> unknown              its word did not come in time
           └─> overtaken ──> committed (before that), aborted, or unknown (the same turn runs elsewhere)
    abort, refuse ──> aborted       or unknown, where the same turn runs at another gateway

Nothing here can be broken off: a call that ends a turn is never cut in half.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from berth_api.errors import BerthError, LedgerUnavailable, NoCapacity, NoSuchSession, NoSuchTurn
from berth_api.public import TurnAborted, TurnCommitted, TurnUnknown, TurnView, Usage
from berth_api.wire import Finished
from berth_gateway.attempt import Attempt, Broken
from berth_gateway.backends import Backends
from berth_gateway.events import unpack
from berth_gateway.ledger.errors import DurabilityUnknown, FenceLost
from berth_gateway.ledger.records import Ended
from berth_gateway.logs import log_of
from berth_gateway.output import Output, PublicEvent
from berth_gateway.work import Work


class Ending:
    """The end of one turn; each of `commit`, `abort` and `refuse` tells one terminal event, or raises a refusal."""

    def __init__(
        self,
        backends: Backends,
        work: Work,
        output: Output,
        attempt: Attempt,
        emit: Callable[[PublicEvent], None],
    ) -> None:
        self._backends = backends
        self._ledger = backends.ledger
        self._settings = backends.settings.turn
        self._acquired = acquired = attempt.acquired
        self._work = work
        self._output = output
        self._attempt = attempt
        self._emit = emit
        self._turn = acquired.fence.turn
        self._loop = asyncio.get_running_loop()

    async def commit(self, finished: Finished, *, cached_tokens: int) -> TurnView:
        """Make it real, and say so only after the ledger did."""
        usage = Usage(self._prompt_tokens, self._output.count, cached_tokens)
        deadline = self._loop.time() + self._settings.commit_s
        while True:
            try:
                with self._backends.metrics.ledger("commit"):
                    ended = await self._ledger.commit(
                        self._attempt.fence,
                        parent=self._acquired.parent,
                        ids=self._work.input_ids + self._output.packed,
                        input_tokens=len(self._work.input_ids) // 4,
                        finish=finished.finish_reason,
                        usage=usage,
                    )
            except (LedgerUnavailable, DurabilityUnknown) as error:
                self._log.warning("turn.commit_unanswered", type=error.type, detail=error.message)
                if self._loop.time() >= deadline:
                    return self._tell_unknown(error.type)
                await asyncio.sleep(self._settings.retry_pause_s)
            except FenceLost:
                return await self._overtaken(finished)
            except BerthError as error:
                return self._tell_aborted(Broken(error.type, retry_safe=False))
            else:
                return self._tell_committed(ended, finished)

    async def abort(self, broken: Broken, *, begun: bool) -> TurnView:
        """Undo it. Raises `NoCapacity` where no worker was found before anybody was told that it began."""
        ended = await self._forget(broken)
        if ended is None and await self._runs_elsewhere():
            return self._tell_unknown("superseded")
        if ended is not None and ended.outcome.state == "committed":
            return self._tell_unknown("superseded")
        if broken.reason == "no_capacity" and not begun:
            raise NoCapacity("no worker took this turn in time", retry_after=1)
        if broken.reason == "ordered":  # the ledger knows what for
            broken = _as_recorded(ended) or broken
        return self._tell_aborted(broken)

    async def refuse(self, refusal: BerthError, *, begun: bool) -> TurnView:
        """Undo what cannot run. Raises the refusal where nobody was told yet that it began."""
        broken = Broken(refusal.type)
        await self._forget(broken)
        if not begun:
            raise refusal
        return self._tell_aborted(broken)

    # At the ledger --------------------------------------------------------------------------------------------------

    async def _overtaken(self, finished: Finished) -> TurnView:
        """Someone else holds the session: find out whether our commit was before that."""
        fence = self._attempt.fence
        try:
            outcome = await self._ledger.outcome(fence.namespace, fence.name, fence.turn)
        except (NoSuchSession, NoSuchTurn):  # closed under it; only what the ledger kept of this very attempt counts
            recorded = _as_recorded(await self._forget(Broken("superseded")))
            return self._tell_aborted(recorded) if recorded else self._tell_unknown("superseded")
        except BerthError:
            return self._tell_unknown("superseded")
        if outcome.state == "committed" and outcome.head == finished.head:
            return self._tell_committed(Ended(outcome), finished)
        if outcome.state in ("running", "committed"):  # the same turn, run again by another gateway
            return self._tell_unknown("superseded")
        return self._tell_aborted(Broken("superseded"))

    async def _runs_elsewhere(self) -> bool:
        """Whether this very turn runs or was committed at another gateway: then it is not ours to call aborted."""
        fence = self._attempt.fence
        try:
            outcome = await self._ledger.outcome(fence.namespace, fence.name, fence.turn)
        except (NoSuchSession, NoSuchTurn):
            return False
        except BerthError:
            return self._work.shared  # it cannot be told now
        return outcome.state == "committed" or (outcome.epoch > fence.epoch and outcome.state != "aborted")

    async def _forget(self, broken: Broken) -> Ended | None:
        """Tell the ledger that this turn never happened. None: it does not matter or cannot be told now."""
        deadline = self._loop.time() + self._settings.abort_s
        while True:
            try:
                with self._backends.metrics.ledger("abort"):
                    ended = await self._ledger.abort(
                        self._attempt.fence, reason=broken.reason, retry_safe=broken.retry_safe
                    )
            except FenceLost:
                return None
            except BerthError as error:
                self._log.warning("turn.abort_unanswered", type=error.type, detail=error.message)
                if self._loop.time() >= deadline:
                    return None
                await asyncio.sleep(self._settings.retry_pause_s)
            else:
                self._backends.order(ended.release)
                return ended

    # To the listener ------------------------------------------------------------------------------------------------

    def _tell_committed(self, ended: Ended, finished: Finished) -> TurnView:
        self._backends.order(ended.release)
        outcome, reason = ended.outcome, finished.finish_reason
        position = outcome.position if outcome.position is not None else self._acquired.turns
        usage = outcome.usage or Usage(self._prompt_tokens, self._output.count, 0)
        self._emit(TurnCommitted(self._turn, outcome.head, position, usage, reason))
        return TurnView(
            self._turn,
            "committed",
            text=self._output.text,
            output_ids=unpack(self._output.packed),
            logprobs=self._output.logprobs if self._work.logprobs else None,
            head=outcome.head,
            turn_index=position,
            usage=usage,
            finish_reason=reason,
            worker=self._attempt.worker,
            moves=self._attempt.moves,
        )

    def _tell_aborted(self, broken: Broken) -> TurnView:
        head, reason, retry_safe = self._acquired.parent, broken.reason, broken.retry_safe
        self._emit(TurnAborted(self._turn, reason, retry_safe, head))
        return TurnView(
            self._turn, "aborted", head=head, reason=reason, retry_safe=retry_safe, moves=self._attempt.moves
        )

    def _tell_unknown(self, reason: str) -> TurnView:
        self._emit(TurnUnknown(self._turn, reason))
        return TurnView(self._turn, "unknown", reason=reason, moves=self._attempt.moves)

    @property
    def _log(self) -> structlog.stdlib.BoundLogger:
        return log_of(self._acquired.fence)

    @property
    def _prompt_tokens(self) -> int:
        return self._acquired.tokens + len(self._work.input_ids) // 4


def _as_recorded(ended: Ended | None) -> Broken | None:
    """Return why the ledger says that the turn was aborted; None where it does not say so."""
    if ended is None or ended.outcome.state != "aborted" or ended.outcome.reason is None:
        return None
    return Broken(ended.outcome.reason, retry_safe=ended.outcome.retry_safe)
