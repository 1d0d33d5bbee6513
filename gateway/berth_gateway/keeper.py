"""Begins turns and keeps the running ones: from a request in words to a task that owns a fence.

What a session is (its uid, its model, how its history ends) is remembered between turns, so that a turn costs one round
trip to the ledger before its worker is asked. The memory may be old: `acquire` says what is true, and ids that were
made for another parent are made again.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import structlog

from berth_api import heads
from berth_api.errors import BerthError, Draining, InvalidRequest, LedgerUnavailable, NoCapacity, NoSuchSession
from berth_api.public import TurnCommitted, TurnCreate, TurnStarted, TurnToken, TurnView, Usage
from berth_api.wire import Sampling
from berth_gateway.attempt import Broken
from berth_gateway.backends import Backends
from berth_gateway.events import unpack
from berth_gateway.ledger.records import Acquired, Fence, Known, Outcome
from berth_gateway.models import Models
from berth_gateway.output import Listener, Output
from berth_gateway.tokens import ModelText
from berth_gateway.turn import Turn
from berth_gateway.work import Work

log = structlog.get_logger(__name__)

_HINTS = 10_000
"""Sessions remembered: about 5 MB."""
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Hint:
    """What a session was when we last saw it. `tail` is the last id of its history, None where not known."""

    uid: str
    fleet: str
    fingerprint: str
    head: str
    turns: int
    tail: int | None = None


@dataclass(frozen=True, slots=True)
class Begin:
    """A request for a turn. `expect_head`: If-Match; `key`: Idempotency-Key; `arrived`: the loop's time."""

    namespace: str
    name: str
    body: TurnCreate
    arrived: float
    key: str | None = None
    expect_head: str | None = None


@dataclass(frozen=True, slots=True)
class Replay:
    """A turn that was committed before, with its words."""

    outcome: Outcome
    output: Output

    @property
    def id(self) -> str:
        return self.outcome.turn

    def tell(self, listener: Listener) -> None:
        """Say again what the turn's own stream said, in short."""
        outcome, usage = self.outcome, self.usage
        cached = usage.cached_tokens
        listener(TurnStarted(self.id, outcome.epoch, outcome.worker or "", usage.prompt_tokens, cached), Output())
        listener(TurnToken(unpack(self.output.packed), self.output.text), self.output)
        if outcome.position is not None and outcome.finish is not None:
            listener(TurnCommitted(self.id, outcome.head, outcome.position, usage, outcome.finish), self.output)

    @property
    def usage(self) -> Usage:
        return self.outcome.usage or Usage(0, self.output.count, 0)

    def view(self) -> TurnView:
        return view_of(self.outcome, self.output)


def view_of(outcome: Outcome, output: Output | None) -> TurnView:
    """Return a turn as its outcome and, where it was committed, its words tell it."""
    done = outcome.state == "committed"
    return TurnView(
        outcome.turn,
        outcome.state,
        text=output.text if output else None,
        output_ids=unpack(output.packed) if output else None,
        head=None if outcome.state == "running" else outcome.head,
        turn_index=outcome.position,
        usage=outcome.usage,
        finish_reason=outcome.finish,
        reason=outcome.reason,
        retry_safe=outcome.retry_safe if outcome.state == "aborted" else None,
        worker=outcome.worker if done else None,
        moves=outcome.moves,
    )


class Keeper:
    """One a process."""

    def __init__(self, backends: Backends, models: Models) -> None:
        self._backends = backends
        self._models = models
        self._hints: OrderedDict[tuple[str, str], Hint] = OrderedDict()
        self._running: dict[str, Turn] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.draining = False

    async def begin(self, ask: Begin, listener: Callable[[str], Listener]) -> Turn | Replay:
        """Acquire and start a turn, or find it done. `listener` is made with the turn's id.

        Raises what refuses it; nothing has changed then.
        """
        try:
            return await self._begin_fresh(ask, listener)
        except BerthError as refusal:
            self._backends.metrics.refused.labels(refusal.type).inc()
            raise

    async def _begin_fresh(self, ask: Begin, listener: Callable[[str], Listener]) -> Turn | Replay:
        if self.draining:
            raise Draining("this gateway is going away", retry_after=1)
        known = self._hints.get((ask.namespace, ask.name))
        try:
            return await self._begin(ask, listener)
        except NoSuchSession:
            if known is None:
                raise
            self._forget(ask, known.uid)
        return await self._begin(ask, listener)  # our memory was of an older session of that name

    async def _begin(self, ask: Begin, listener: Callable[[str], Listener]) -> Turn | Replay:
        hint = await self._hint(ask)
        turn = heads.turn_id(hint.uid, ask.key) if ask.key is not None else str(uuid.uuid4())
        listening = listener(turn)
        patience_s = self._backends.settings.turn.capacity_wait_s
        model = await self._models.wait(ask.namespace, hint.fleet, hint.fingerprint, for_s=patience_s)
        ids = await _encode(model, ask.body, hint)
        asked_at, acquired = await self._acquire(ask, hint, turn, len(ids) // 4)
        if isinstance(acquired, Known):
            outcome = acquired.outcome
            words = await self.words(ask.namespace, ask.name, hint.uid, outcome, ask.body.sampling)
            return Replay(outcome, words)
        if acquired.parent != hint.head:
            ids = await self._encode_again(ask, hint, acquired, model)
        return self._start(ask, hint, acquired, ids, asked_at=asked_at, listener=listening)

    async def _encode_again(self, ask: Begin, hint: Hint, acquired: Acquired, model: ModelText) -> bytes:
        """Make the ids for the parent that the turn really has; if they cannot be made, the turn never was."""
        fence = acquired.fence
        fresh = Hint(fence.uid, hint.fleet, acquired.fingerprint, acquired.parent, acquired.turns)
        try:
            if ask.body.messages is not None:
                fresh = await self._with_tail(ask, fresh)
            return await _encode(model, ask.body, fresh)
        except (BerthError, asyncio.CancelledError) as error:
            reason = error.type if isinstance(error, BerthError) else "client_gone"
            self._backends.run(self._give_back(fence, reason))
            raise

    async def _give_back(self, fence: Fence, reason: str) -> None:
        """Free a session whose turn never began; if that fails, the lease's end does it."""
        try:
            await self._backends.ledger.abort(fence, reason=reason)
        except BerthError as error:
            log.warning("turn.not_given_back", turn=fence.turn, detail=error.message)

    def _start(
        self, ask: Begin, hint: Hint, acquired: Acquired, ids: bytes, *, asked_at: float, listener: Listener
    ) -> Turn:
        body = ask.body
        work = Work(
            input_ids=ids,
            sampling=body.sampling,
            arrived=ask.arrived,
            logprobs=body.logprobs or body.top_logprobs > 0,
            top_logprobs=body.top_logprobs,
            on_worker_failure=body.on_worker_failure,
            background=body.background,
            shared=ask.key is not None,
        )
        turn = Turn(self._backends, acquired, work, asked_at, listener)
        self._backends.order(acquired.release)
        self._running[turn.id] = turn
        task = asyncio.get_running_loop().create_task(self._run(turn, ask, hint))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return turn

    async def _run(self, turn: Turn, ask: Begin, hint: Hint) -> None:
        try:
            await turn.run()
        finally:
            if self._running.get(turn.id) is turn:  # not the rerun that began while this one was ending
                del self._running[turn.id]
        if not turn.ended.exception() and (view := turn.ended.result()).state == "committed" and view.head is not None:
            last = (turn.output.packed or turn.work.input_ids)[-4:]
            tail = int.from_bytes(last, "little")
            turns = turn.acquired.turns + 1
            self._remember(ask, Hint(hint.uid, hint.fleet, hint.fingerprint, view.head, turns, tail))

    async def _acquire(self, ask: Begin, hint: Hint, turn: str, tokens: int) -> tuple[float, Acquired | Known]:
        """Acquire, waiting for capacity. Returns the loop's time before the call, too."""
        loop = asyncio.get_running_loop()
        settings = self._backends.settings.turn
        digest = digest_of(ask.body)
        while True:
            asked_at = loop.time()
            call = self._backends.ledger.acquire(
                ask.namespace,
                ask.name,
                turn,
                digest=digest,
                input_tokens=tokens,
                lease_s=settings.lease_s,
                uid=hint.uid,
                expect_head=ask.expect_head,
                seed=ask.body.sampling.seed,
            )
            try:
                with self._backends.metrics.ledger("acquire"):
                    return asked_at, await self._whole(call)
            except NoCapacity:
                if loop.time() - ask.arrived >= settings.capacity_wait_s or self.draining:
                    raise
                await asyncio.sleep(settings.capacity_pause_s)

    async def _whole(self, call: Coroutine[Any, Any, Acquired | Known]) -> Acquired | Known:
        """Wait for an acquire; where the waiting is cancelled, what it acquired is given back."""
        task = asyncio.get_running_loop().create_task(call)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._backends.run(self._undo(task))
            raise

    async def _undo(self, task: asyncio.Task[Acquired | Known]) -> None:
        with suppress(BerthError):
            acquired = await task
            if isinstance(acquired, Acquired):
                await self._give_back(acquired.fence, "client_gone")

    async def _hint(self, ask: Begin) -> Hint:
        hint = self._hints.get((ask.namespace, ask.name))
        if hint is None:
            record = await self._backends.ledger.session(ask.namespace, ask.name)
            hint = Hint(record.uid, record.fleet, record.fingerprint, record.head, record.turns)
        if ask.body.messages is not None:
            hint = await self._with_tail(ask, hint)
        self._remember(ask, hint)
        return hint

    async def _with_tail(self, ask: Begin, hint: Hint) -> Hint:
        if hint.tail is not None or not hint.turns:
            return hint
        history = await self._backends.ledger.history(
            ask.namespace, ask.name, uid=hint.uid, start=hint.turns - 1, stop=hint.turns
        )
        return replace(hint, tail=int.from_bytes(history.turns[-1][-4:], "little"))

    def _remember(self, ask: Begin, hint: Hint) -> None:
        self._hints[ask.namespace, ask.name] = hint
        self._hints.move_to_end((ask.namespace, ask.name))
        if len(self._hints) > _HINTS:
            self._hints.popitem(last=False)

    def _forget(self, ask: Begin, uid: str) -> None:
        """Drop what is remembered of a session that is gone; another turn may have learned of the next one already."""
        hint = self._hints.get((ask.namespace, ask.name))
        if hint is not None and hint.uid == uid:
            del self._hints[ask.namespace, ask.name]

    # Finished ones --------------------------------------------------------------------------------------------------

    async def words(self, namespace: str, name: str, uid: str, outcome: Outcome, sampling: Sampling) -> Output:
        """Return what a committed turn said, from its ids. Raises `NoSuchSession`, `HistoryLost`, `NoCapacity`."""
        if outcome.position is None:
            raise InvalidRequest("only a committed turn has words")
        record = await self._backends.ledger.session(namespace, name)
        history = await self._backends.ledger.history(
            namespace, name, uid=uid, start=outcome.position, stop=outcome.position + 1
        )
        model = await self._models.get(namespace, record.fleet, record.fingerprint)
        cut = 4 * outcome.input_tokens
        before, packed = history.turns[0][:cut], history.turns[0][cut:]
        output = Output()
        output.add(packed, await asyncio.to_thread(model.output_text, before, packed, outcome.finish, sampling), None)
        return output

    # All of them ----------------------------------------------------------------------------------------------------

    async def follow_orders(self) -> None:
        """Pass on the orders that other gateways took, for ever."""
        while True:
            try:
                async for order in self._backends.ledger.orders():
                    turn = self._running.get(order.turn)
                    if turn is not None and turn.acquired.fence.uid == order.uid:
                        turn.order(order.mode)
            except LedgerUnavailable as error:
                log.warning("orders.unavailable", detail=error.message)
            except Exception:
                log.exception("orders.crashed")  # one odd order must not be the last that is heard
            await asyncio.sleep(self._backends.settings.turn.retry_pause_s)

    async def drain(self, deadline_s: float) -> None:
        """Take no new turn, let the running ones finish, end what is left at the deadline."""
        self.draining = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=deadline_s)
        for turn in list(self._running.values()):
            turn.interrupt(Broken("gateway_shutdown"))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2 * self._backends.settings.turn.abort_s)


def digest_of(body: TurnCreate) -> str:
    """Return what names a turn's payload: how its answer travels is no part of it."""
    return hashlib.sha256(_encoder.encode(msgspec.structs.replace(body, stream=False, background=False))).hexdigest()


async def _encode(model: ModelText, body: TurnCreate, hint: Hint) -> bytes:
    """Encode in place what is short, and in a thread what would hold up every other stream."""
    if _size(body) <= _INLINE_CHARS:
        return model.encode(body, parent=hint.head, tail=hint.tail)
    return await asyncio.to_thread(model.encode, body, parent=hint.head, tail=hint.tail)


_INLINE_CHARS = 4096
"""About a millisecond of tokenizing."""
_MESSAGE_CHARS = 64
"""What the rendering of one message costs, in characters of tokenizing."""


def _size(body: TurnCreate) -> int:
    if body.messages is not None:
        return sum(_size_of(message.content) for message in body.messages)
    return len(body.input or "") + len(body.input_ids or ())


def _size_of(content: str | list[dict[str, Any]] | None) -> int:
    """Count a message's own cost, too: a template takes its time for each, however little it says."""
    return _MESSAGE_CHARS + (len(content) if isinstance(content, str) else _INLINE_CHARS)
