"""The engine without its thread: requests in, steps, events out. Everything here runs on one thread.

A refused request changes nothing: all checks come first; then the fence moves, an older attempt is aborted, and the
request is queued. There are two ways out of a request, `_finish` and `abort`, so that KV, session and client always
hear of its end together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from berth_api import heads
from berth_api.errors import Conflict, Draining, InvalidRequest
from berth_api.wire import Aborted, Finished, FinishReason, Started, Tokens
from berth_worker.cache.integrity import snapshot, verify, verify_owners
from berth_worker.cache.kv import KVCache
from berth_worker.cache.pages import PagePool
from berth_worker.cache.rows import RowTable
from berth_worker.cache.sessions import Slots
from berth_worker.engine.gateway import GatewayTurns
from berth_worker.engine.intake import Intake
from berth_worker.engine.requests import Event, Generate, Live, PromptLogprobs, Sink
from berth_worker.engine.scheduler import Scheduler
from berth_worker.engine.stats import Counters, State
from berth_worker.sessions.fence import Fence
from berth_worker.sessions.gateway import resolve
from berth_worker.sessions.native import NativeSessions

if TYPE_CHECKING:
    from collections.abc import Callable

    from berth_api.wire import ReleaseRequest, StopRequest, TurnRequest
    from berth_worker.cache.integrity import CheckLevel, Memory
    from berth_worker.cache.kv import Holding
    from berth_worker.engine.batch import Runner, Sampled
    from berth_worker.engine.intake import Model
    from berth_worker.engine.scheduler import Limits
    from berth_worker.engine.sequence import Sequence, Work
    from berth_worker.sessions.native import NativeStart

log = structlog.get_logger(__name__)


class Core:
    """One model, its KV pool, its sessions and its requests."""

    def __init__(
        self, runner: Runner, model: Model, limits: Limits, *, slots: int, check: CheckLevel, clock: Callable[[], float]
    ) -> None:
        self._runner, self._check, self._clock, self._queue_s = runner, check, clock, limits.queue_s
        pool = PagePool(runner.num_pages, runner.page_size)
        self.cache = KVCache(pool, RowTable(slots, pool.pages_for(model.context)))
        self.slots = Slots(self.cache)
        self.scheduler = Scheduler(self.cache, self.slots, limits)
        self.native = NativeSessions()
        self.turns = GatewayTurns(self.slots)
        self.counters = Counters()
        self.draining = False
        self.outbox: list[tuple[Sink, Event]] = []
        """Events for callers, in order; whoever drives the engine takes them away."""
        self._intake = Intake(model)
        self._live: dict[int, Live] = {}
        self._rids: set[str] = set()
        """Of native requests in flight."""
        self._arrivals = 0

    @property
    def idle(self) -> bool:
        """Nothing is queued or running."""
        return not self._live

    # Requests

    def generate(self, request: Generate, sink: Sink) -> None:
        """Accept a native request. Raises a `BerthError`, changing nothing, if it cannot be."""
        self._check_accepting()
        if request.rid in self._rids:
            raise InvalidRequest(f"rid {request.rid!r} belongs to a request that runs", field="rid")
        session = request.session_id
        start = self.native.ready(session, request.rid, request.branch) if session is not None else None
        live = self._intake.generate(request, start, self._arrivals, sink)
        if start is not None:
            self._replace(start)
            self.native.begin(start)
        self._accept(live)

    def turn(self, request: TurnRequest, sink: Sink) -> None:
        """Accept a gateway's turn. Besides, raises `Stale`, `Duplicate`, `HistoryRequired` and `Conflict`."""
        self._check_accepting()
        fence, older = Fence(request.epoch, request.attempt), self.turns.get(request.uid)
        self.turns.fences.check(request.uid, fence)
        held = self.turns.held(request.uid)
        kin = self.turns.kin(request.parent) if held is None else None
        start = resolve(request, kin.history if kin is not None else held)
        live = self._intake.turn(request, start, self._arrivals, sink)
        self.turns.fences.advance(request.uid, fence)
        if kin is not None:
            self.cache.publish(kin.holding, kin.history.ids[: kin.holding.committed])
        if older is not None:
            self._abort(older, "superseded", "a newer attempt at this session arrived")
        self.turns.add(request.uid, live)
        self._accept(live)

    def _replace(self, start: NativeStart) -> None:
        for live in [live for live in self._live.values() if live.native is not None and live.rid in start.aborted]:
            self._abort(live, "superseded", "a request of its session replaced it")

    def _check_accepting(self) -> None:
        if self.draining:
            raise Draining("this worker is going away and takes no new work")
        self.scheduler.check_queue()

    def _accept(self, live: Live) -> None:
        self._arrivals += 1
        live.accepted_at = self._clock()
        self._live[live.sequence.key] = live
        if live.turn is None:
            self._rids.add(live.rid)
        finish = live.replay()
        if finish is None:
            self.scheduler.add(live.sequence)
        else:
            self._finish(live, finish)

    # Orders

    def stop(self, order: StopRequest) -> bool:
        """Finish a gateway's turn with what it has said so far; say whether that very attempt was in flight."""
        live = self.turns.meant_by(order)
        if live is None:
            return False
        self._finish(live, FinishReason("stop"))
        return True

    def cancel(self, sink: Sink, reason: str, message: str) -> None:
        """Abort the request whose events go to `sink`, if it is still in flight."""
        for live in [live for live in self._live.values() if live.sink is sink]:
            self._abort(live, reason, message)

    def abort(self, rid: str) -> None:
        """Abort the request `rid`. An unknown one may have ended just now: no error."""
        for live in [live for live in self._live.values() if live.rid == rid]:
            self._abort(live, "abort", "aborted by request")

    def abort_all(self, reason: str, message: str) -> None:
        """Abort everything that is queued or running."""
        for live in list(self._live.values()):
            self._abort(live, reason, message)

    def open(self, session_id: str | None, capacity: int, timeout_s: float | None, *, streaming: bool = True) -> str:
        """Open a native session; return its id."""
        if self.draining:
            raise Draining("this worker is going away and takes no new work")
        return self.native.open(session_id, capacity, timeout_s, self._clock(), streaming=streaming)

    def close(self, session_id: str) -> None:
        """Close a native session, when its turn ends if one is in flight."""
        if self.native.close(session_id):
            self.slots.release(("native", session_id), "closed")

    def release(self, order: ReleaseRequest) -> bool:
        """Wipe a gateway session's KV, unless a turn runs or a turn of a higher epoch ran. True: none is held now."""
        if not self.turns.may_release(order):
            return False
        self.slots.release(("gateway", order.uid), "hibernated")
        return True

    def flush(self) -> None:
        """Wipe all KV, sessions' and prefixes'. Raises `Conflict` while requests are in flight."""
        if not self.idle:
            raise Conflict(f"{len(self._live)} requests are in flight")
        for slot in list(self.slots):
            self.slots.release(slot.key, "flushed")
        self.cache.forget_prefixes()

    def drain(self) -> None:
        """Refuse everything new from now on."""
        self.draining = True

    def reap(self) -> bool:
        """Close native sessions that were idle for too long, abort what waited for too long; say whether any did."""
        reaped = self.native.reap(self._clock())
        for session_id in reaped:
            self.slots.release(("native", session_id), "closed")
        late = self._overdue()
        for live in late:
            self._abort(live, "queue_timeout", f"no room for it within {self._queue_s:g} s")
        return bool(reaped or late)

    def _overdue(self) -> list[Live]:
        if self._queue_s is None:
            return []
        waiting = [self._live[sequence.key] for sequence in self.scheduler.waiting if not sequence.admitted]
        return [live for live in waiting if self._clock() - live.accepted_at > self._queue_s]

    # Steps

    def step(self) -> None:
        """Admit, run one forward pass, hand out what came of it. Raises `AccountingError` if the books are wrong."""
        for sequence in self.scheduler.admit():
            self._admitted(self._live[sequence.key])
        work = self.scheduler.plan()
        if work:
            self._run(work)
        if self._check == "busy":
            self.verify()
        elif self._check == "idle" and self.idle:
            verify(self._memory())

    def give_up(self, message: str) -> None:
        """Tell every request that it is over. For an engine whose books are wrong: no KV is touched any more."""
        for live in self._live.values():
            self._emit(live, Aborted("internal_error", message))
        self._live.clear()

    def verify(self) -> None:
        """Raise `AccountingError` if KV was lost, counted twice or has two owners."""
        holdings = {id(holding): holding for holding in self.scheduler.holdings}
        holdings |= {id(slot.holding): slot.holding for slot in self.slots}
        verify(self._memory())
        verify_owners(self.cache, list(holdings.values()))

    def _memory(self) -> Memory:
        return snapshot(self.cache, self.slots, self.scheduler.holdings)

    def _run(self, work: list[Work]) -> None:
        try:
            results = self._runner.step([item.step for item in work])
        except Exception as error:  # what a backend raises is its own; the requests of this pass must not hang on it
            log.exception("step failed", requests=len(work))
            self.counters.failed_steps += 1
            for item in work:
                self._abort(self._live[item.sequence.key], "internal_error", f"the step failed: {error}")
            return
        self.counters.failed_steps = 0
        self.counters.steps += 1
        for item, sampled in zip(work, results, strict=True):
            self._advance(self._live[item.sequence.key], item, sampled)

    def _advance(self, live: Live, item: Work, sampled: Sampled) -> None:
        sequence, end = item.sequence, item.step.end
        sequence.computed = end
        if sequence.holding is not None:
            self._commit(sequence, sequence.holding, end)
        self._note_prompt_logprobs(live, sampled)
        if end < sequence.length:
            return
        if sampled.token is None:
            self._finish(live, FinishReason("length"))
            return
        sequence.append(sampled.token)
        self.counters.generated_tokens += 1
        said = live.answer.push(sampled.token)
        self._emit(live, Tokens([sampled.token], said.text, live.logprobs(sampled)))
        if said.finish is not None:
            self._finish(live, said.finish)

    def _commit(self, sequence: Sequence, holding: Holding, end: int) -> None:
        """KV up to `end` is there. The tree gets the prompt of a sequence that began from nothing, once it is whole."""
        self.cache.commit(holding, end)
        if sequence.unpublished and holding.committed >= len(sequence.prompt):
            sequence.unpublished = False
            self.cache.publish(holding, sequence.prompt)

    def _note_prompt_logprobs(self, live: Live, sampled: Sampled) -> None:
        sequence = live.sequence
        first, prompt = sequence.prompt_logprobs_from, sequence.sample.prompt_length
        if first is None:
            return
        live.prompt_logprobs += sampled.prompt_logprobs
        live.prompt_top += sampled.prompt_top
        if sequence.computed >= prompt:
            sequence.prompt_logprobs_from = None
            shown = prompt - len(live.prompt_logprobs) - 1
            ids = sequence.buffer[shown:prompt].tolist()
            self._emit(live, PromptLogprobs(ids, [None, *live.prompt_logprobs], [[], *live.prompt_top]))

    def _admitted(self, live: Live) -> None:
        """Tell of the first admission; count what has to be computed again."""
        sequence = live.sequence
        lost = sequence.length if live.started else sequence.history
        self.counters.reprefilled_tokens += max(0, lost - sequence.committed)
        if sequence.prompt_logprobs_from is not None:
            live.prompt_logprobs, live.prompt_top = [], []
        self._start(live)

    def _start(self, live: Live) -> None:
        if not live.started:
            live.started = True
            prompt, cached = live.sequence.sample.prompt_length, live.sequence.cached
            self.counters.prompt_tokens += prompt
            self.counters.cached_tokens += cached
            self._emit(live, Started(prompt, cached))

    def _emit(self, live: Live, event: Event) -> None:
        self.outbox.append((live.sink, event))

    # Ends

    def _finish(self, live: Live, reason: FinishReason) -> None:
        """Commit: the session's history is prompt and output now, its KV goes to the slot."""
        sequence = live.sequence
        # A turn that ends before its admission has no KV of its own; the slot keeps what the history shares with it.
        holding = sequence.holding or self.slots.restore(sequence.session, sequence.reuse)
        if not live.started and holding is not None:
            sequence.cached = min(holding.committed, sequence.sample.prompt_length)
        self._start(live)
        self._forget(live)
        history = live.extended()
        if holding is not None and sequence.session is not None:
            self.slots.save(sequence.session, holding, sequence.length, history)
        elif holding is not None:
            self.cache.publish(holding, sequence.buffer[: holding.committed])
            self.cache.release(holding)
        if live.native is not None and self.native.end(live.native, sequence.ids.copy(), self._clock()):
            self.slots.release(sequence.session, "closed")
        head = history.head if history is not None else heads.ROOT
        self.counters.turns[reason.type] += 1
        self._emit(live, Finished(head, reason, live.answer.count, live.answer.flush(reason)))

    def _abort(self, live: Live, reason: str, message: str) -> None:
        """Discard: KV is wiped, the slot's included; the tokens committed before stay."""
        self._forget(live)
        if not self.slots.release(live.sequence.session, "aborted") and live.sequence.holding is not None:
            self.cache.release(live.sequence.holding)
        if live.native is not None:
            self.native.end(live.native, None, self._clock())
        self.counters.turns[reason] += 1
        self._emit(live, Aborted(reason, message))

    def _forget(self, live: Live) -> None:
        self.scheduler.remove(live.sequence)
        self._runner.forget(live.sequence.key)
        del self._live[live.sequence.key]
        if live.turn is None:
            self._rids.remove(live.rid)
        else:
            self.turns.remove(live.turn.uid)

    def state(self) -> State:
        """Return a snapshot of everything that is told to the outside."""
        lent = len({sequence.session for sequence in self.scheduler.running if sequence.session is not None})
        first_turns = sum(self.slots.get(s.session) is None for s in self.scheduler.running if s.session is not None)
        return State(
            memory=self._memory(),
            running=len(self.scheduler.running),
            queued=len(self.scheduler.waiting),
            resident=len(self.slots) + first_turns,
            lent=lent,
            native_sessions=len(self.native),
            turns=dict(self.counters.turns),
            prompt_tokens=self.counters.prompt_tokens,
            cached_tokens=self.counters.cached_tokens,
            generated_tokens=self.counters.generated_tokens,
            steps=self.counters.steps,
            releases=dict(self.slots.releases),
            retracts=self.scheduler.retracts,
            reprefilled_tokens=self.counters.reprefilled_tokens,
            failed_steps=self.counters.failed_steps,
            draining=self.draining,
        )
