"""The ledger: the only code that talks to Redis, one Lua script an operation.

Every method is one round trip and one atomic decision, taken inside Redis by (epoch, attempt, turn id) and never by a
gateway's clock. Every script may be replayed blindly (a reply can be lost after the act): the second answer equals the
first. All methods raise `LedgerUnavailable` when Redis does not answer within the deadline (the act may have happened:
ask again with the same arguments), and `LedgerFault` when it answers nonsense.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import uuid
from typing import TYPE_CHECKING, Any, Self, TypeVar

from msgspec import convert, msgpack, to_builtins

from berth_api import errors
from berth_api.admin import Change, Changes, FleetView
from berth_api.errors import BerthError, CursorGone, HistoryLost, InvalidRequest, NoSuchSession
from berth_api.heads import advance, default_seed
from berth_api.public import NAME_PATTERN
from berth_gateway.ledger.errors import DurabilityUnknown, FenceLost
from berth_gateway.ledger.orders import CHANNEL, heard
from berth_gateway.ledger.records import (
    Acquired,
    Closed,
    Ended,
    Fence,
    History,
    Known,
    Limits,
    Moved,
    Opened,
    Outcome,
    Reaped,
    Renewed,
    SessionPage,
    SessionRecord,
    Span,
    WorkerRecord,
)
from berth_gateway.ledger.scripts import compose, operations
from berth_gateway.ledger.settings import LedgerSettings
from berth_gateway.ledger.transport import Transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from berth_api.public import Origin, Usage
    from berth_api.wire import FinishReason
    from berth_gateway.ledger.records import Order, OrderMode

T = TypeVar("T")

_NAMESPACES = "berth:namespaces"
_NAME = re.compile(NAME_PATTERN)
_ID = re.compile(r"[A-Za-z0-9._-]{1,200}")
_CURSOR_DIGITS = 15
"""More changes than Lua counts exactly never happened."""

_REFUSALS: dict[str, type[BerthError]] = {
    kind.__name__: kind
    for kind in (
        errors.Conflict,
        errors.CursorGone,
        errors.HeadMismatch,
        errors.HistoryLost,
        errors.IdempotencyMismatch,
        errors.InvalidRequest,
        errors.ManagedByResource,
        errors.NoCapacity,
        errors.NoSuchFleet,
        errors.NoSuchSession,
        errors.NoSuchTurn,
        errors.SessionClosing,
        errors.SessionExists,
        errors.TooLong,
        errors.TurnInFlight,
        FenceLost,
    )
}
"""What a script may refuse with."""


class Ledger:
    """What the fleet must not forget. One instance a process; safe for any number of tasks of one event loop."""

    def __init__(self, url: str, settings: LedgerSettings) -> None:
        self._url = url
        self._settings = settings
        self._transport = Transport(url, settings)
        constants = settings.constants() | {"orders": CHANNEL}
        self._scripts = {name: compose(name, constants) for name in operations()}
        self._process = uuid.uuid4().hex
        self._calls = itertools.count(1)
        self._closed = asyncio.Event()

    @classmethod
    def connect(cls, url: str, settings: LedgerSettings | None = None) -> Self:
        """Return a ledger on the Redis at `url` (redis://, rediss://, unix://). The first call connects."""
        return cls(url, settings or LedgerSettings())

    async def aclose(self) -> None:
        """Drop all connections. Calls in flight fail with `LedgerUnavailable`."""
        self._closed.set()
        await self._transport.aclose()

    async def ping(self) -> None:
        """Return when Redis answers and accepts writes; else raise `LedgerUnavailable`."""
        await self._transport.command("SET", "berth:ping", "1")

    # Sessions -------------------------------------------------------------------------------------------------------

    async def open(
        self,
        namespace: str,
        name: str,
        uid: str,
        *,
        fleet: str | None,
        origin: Origin = "http",
        limits: Limits | None = None,
        exist_ok: bool = False,
        fork: tuple[str, int | None] | None = None,
        suspend: bool = False,
        bind: bool = False,
        seen: tuple[int, str] | None = None,
    ) -> Opened:
        """Make a session, or answer with the one that has this uid.

        The fleet's fingerprint is pinned. `fleet` None needs `fork` and takes the source's. `exist_ok`: another session
        under the name is the answer instead of an error. `fork` (source name, number of turns or None
        for all) starts with a copy of the source's committed turns, in the same namespace and fleet.
        For resources (origin `cr`): the same uid again stores the new limits; a session of another cr uid under the
        name is closed at once; `suspend` gives its slot up and refuses turns; `bind` takes a free slot if there is one,
        never evicts; `seen` (turns, head) is what the resource last saw: where the ledger has less, the session is
        recorded as lost (`SessionRecord.lost`), never as empty.

        Raises `NoSuchFleet` (no worker was ever registered for it), `SessionExists` (the name is taken by another uid),
        `SessionClosing` (closing, or this uid was closed before: `reason`), and for a fork `NoSuchSession`,
        `InvalidRequest` (field `from.turn` or `fleet`), `HistoryLost`.
        """
        limits = limits or Limits()
        fields = {
            "uid": _id("uid", uid),
            "fleet": fleet if fleet is None else _name("fleet", fleet),
            "origin": origin,
            "exist_ok": exist_ok,
            "idle_us": _us(limits.idle_timeout_s),
            "hibernate_us": _us(limits.hibernate_after_s),
            "max_tokens": limits.max_tokens or 0,
            "on_worker_failure": limits.on_worker_failure,
            "deletion_policy": limits.deletion_policy,
            "suspend": suspend,
            "bind": bind,
        }
        if fork is not None:
            fields |= {"fork": _name("from.session", fork[0]), "fork_turns": fork[1]}
        elif fleet is None:
            raise InvalidRequest("a session needs a fleet", field="fleet")
        if seen is not None:
            fields |= {"seen_turns": seen[0], "seen_head": seen[1]}
        return await self._named("open", namespace, name, Opened, **fields)

    async def close(
        self, namespace: str, name: str, *, uid: str | None = None, by: Origin = "http", reason: str = "deleted"
    ) -> Closed:
        """Close a session for ever: now, or when its running turn ends. A second close answers alike.

        `uid` None: whichever session has the name. By `http`, a session of a resource is refused. By `cr`, its deletion
        policy is followed (Retain: it becomes an http session). Raises `NoSuchSession`, `ManagedByResource`.
        """
        return await self._named("close", namespace, name, Closed, uid=uid, by=by, reason=reason)

    async def session(self, namespace: str, name: str) -> SessionRecord:
        """Raises `NoSuchSession`."""
        return await self._named("session", namespace, name, SessionRecord)

    async def sessions(
        self, namespace: str, *, after: str = "", limit: int = 100, origin: Origin | None = None
    ) -> SessionPage:
        """Return sessions of the namespace by name, those greater than `after`; of one `origin`, fewer than `limit`."""
        return await self._call("sessions", namespace, SessionPage, after=after, limit=limit, origin=origin)

    async def heads(self, namespace: str, name: str, *, uid: str) -> list[str]:
        """Return the head after 0, 1, … turns. Raises `NoSuchSession` (or another uid has the name), `HistoryLost`."""
        return await self._named("heads", namespace, name, list[str], uid=uid)

    async def history(self, namespace: str, name: str, *, uid: str, start: int = 0, stop: int | None = None) -> History:
        """Return the ids of the turns [start, stop); `stop` None: all that are committed.

        Raises `NoSuchSession`, `InvalidRequest` (field `start` or `stop`: outside the history), `HistoryLost`.
        """
        if start < 0:
            raise InvalidRequest("a history begins at turn 0", field="start")
        span = await self._named("history", namespace, name, Span, uid=uid, start=start, stop=stop)
        turns = await self._of_each_turn("turn", namespace, name, uid, span)
        return History(span.start, span.base, span.head, turns)

    async def input_tokens(
        self, namespace: str, name: str, *, uid: str, start: int = 0, stop: int | None = None
    ) -> list[int]:
        """Return how many ids of each turn in [start, stop) are input; the rest is output. Raises as `history`."""
        if start < 0:
            raise InvalidRequest("a history begins at turn 0", field="start")
        span = await self._named("history", namespace, name, Span, uid=uid, start=start, stop=stop)
        return [int(count) for count in await self._of_each_turn("input", namespace, name, uid, span)]

    # Turns ----------------------------------------------------------------------------------------------------------

    async def acquire(
        self,
        namespace: str,
        name: str,
        turn: str,
        *,
        digest: str,
        input_tokens: int,
        lease_s: float,
        uid: str | None = None,
        expect_head: str | None = None,
        seed: int | None = None,
    ) -> Acquired | Known:
        """Take the right to run `turn`, or learn what it came to.

        `digest` names the payload: the same turn id with another is `IdempotencyMismatch`. `uid` and `expect_head` are
        preconditions (None: any). A turn with a live lease, even this very one, is in flight; one whose lease ran out
        is taken over. An aborted turn may run again.
        Without a worker to run it nothing changes, but the turn counts as waiting for a few seconds: try again.

        Raises `NoSuchSession`, `TurnInFlight` (`retry_after` s, `turn`), `HeadMismatch` (`head`), `SessionClosing`,
        `ManagedByResource` (suspended), `IdempotencyMismatch`, `TooLong` (`limit`, `tokens`), `HistoryLost`,
        `NoCapacity` (`retry_after`). Checked in the order: committed before, session state, head, length, capacity.
        """
        reply = await self._ask(
            "acquire",
            namespace,
            {
                "name": _name("session", name),
                "turn": _id("turn", turn),
                "digest": digest,
                "input_tokens": input_tokens,
                "lease_us": _us(lease_s),
                "uid": uid,
                "expect_head": expect_head,
            },
        )
        answer = msgpack.decode(reply)
        if "outcome" in answer:
            return convert(answer, Known)
        drawn = seed if seed is not None else default_seed(answer["fence"]["uid"], answer["parent"], turn)
        return convert(answer | {"seed": drawn}, Acquired)

    async def renew(self, fence: Fence, *, lease_s: float) -> Renewed:
        """Extend the lease. Goes by the tenure, so a renewal that crosses a `move` or `lift` is good.

        Raises `FenceLost`: stop the attempt, nothing of it can be committed.
        """
        return await self._fenced("renew", fence, Renewed, lease_us=_us(lease_s))

    async def move(
        self, fence: Fence, *, lease_s: float, stay: bool = False, suspect_s: float = 0.0, broke: bool = False
    ) -> Moved:
        """Start the next attempt: elsewhere, or with `stay` at the same worker (a re-POST). Renews the lease.

        `suspect_s` > 0 marks the current worker suspect for so long, whether or not there is another; `broke` says that
        it failed rather than left in order, which is what the session's recovery will be told by. Not the current
        worker, no cordoned and no suspect one is chosen. Raises `FenceLost`; `NoCapacity` (the fence stays good: renew
        it and try again).
        """
        return await self._fenced(
            "move", fence, Moved, lease_us=_us(lease_s), stay=stay, suspect_us=_us(suspect_s), broke=broke
        )

    async def lift(self, fence: Fence, *, seen: tuple[int, int], lease_s: float) -> Fence:
        """Return the fence with an epoch above `seen` (what a worker answered `stale` with), attempt 1.

        Renews the lease. Raises `FenceLost`.
        """
        return await self._fenced("lift", fence, Fence, lease_us=_us(lease_s), seen_epoch=seen[0])

    async def commit(
        self, fence: Fence, *, parent: str, ids: bytes, input_tokens: int, finish: FinishReason, usage: Usage
    ) -> Ended:
        """Append the turn to the history: the one act that makes it real. Only then may the client be told.

        `ids`: packed little-endian int32, `input_tokens` of input then the output; at least one. The head is computed
        here from `parent`. Good after the lease's end if no one took over. Also ends the tenure; the session keeps its
        slot.

        Raises `FenceLost`, `HistoryLost`, `DurabilityUnknown` (the primary has it; call again to wait again).
        """
        if not ids:
            raise InvalidRequest("a turn has at least one token", field="ids")
        wanted = self._settings.wait_replicas
        reply, replicas = await self._send(
            "commit",
            fence.namespace,
            {
                "fence": to_builtins(fence),
                "parent": parent,
                "head": advance(parent, ids),
                "input_tokens": input_tokens,
                "finish": to_builtins(finish),
                "usage": to_builtins(usage),
            },
            ids,
            wait=wanted > 0,
        )
        ended = msgpack.decode(_checked(reply), type=Ended)
        if replicas < wanted:
            raise DurabilityUnknown(f"{replicas} of {wanted} replicas have turn {fence.turn}", turn=fence.turn)
        return ended

    async def abort(self, fence: Fence, *, reason: str, retry_safe: bool = True) -> Ended:
        """End the turn without a trace in the history; `outcome` tells.

        The outcome is what already became of this very attempt, if something did: `committed` when its commit came
        first. Raises `FenceLost`.
        """
        return await self._fenced("abort", fence, Ended, reason=reason, retry_safe=retry_safe)

    async def stop(self, namespace: str, name: str, turn: str, *, mode: OrderMode) -> Ended:
        """Ask whoever runs the turn to end it now: `stop` commits what was said, `abort` discards it.

        The outcome's state is `running` where the order was left for the owner (abort wins over stop), else what the
        turn came to. A turn whose gateway died is aborted here, and a close that waited for it is carried out. Raises
        `NoSuchSession`, `NoSuchTurn`.
        """
        return await self._named("stop", namespace, name, Ended, turn=_id("turn", turn), mode=mode)

    async def outcome(self, namespace: str, name: str, turn: str) -> Outcome:
        """Raises `NoSuchSession`, `NoSuchTurn` (never seen, or forgotten: see `LedgerSettings.outcomes_kept`)."""
        return await self._named("outcome", namespace, name, Outcome, turn=_id("turn", turn))

    async def outcomes(self, namespace: str, name: str, *, uid: str) -> list[Outcome]:
        """Return the committed turns that are still remembered, oldest first. Raises `NoSuchSession`.

        Turns that a fork copied are its source's: it has their ids, not their outcomes.
        """
        return await self._named("outcomes", namespace, name, list[Outcome], uid=uid)

    def orders(self) -> AsyncIterator[Order]:
        """Yield the orders of all namespaces as they are given, across reconnects, until the ledger is closed.

        The fast path only: an order given while the subscription is down arrives with the next `renew`.
        """
        return heard(self._url, self._settings, self._closed)

    # Workers --------------------------------------------------------------------------------------------------------

    async def put_worker(
        self,
        namespace: str,
        worker: str,
        *,
        fleet: str,
        url: str,
        slots: int,
        fingerprint: str,
        cordoned: bool = False,
    ) -> WorkerRecord:
        """Register a worker or renew its facts.

        Raises `Conflict` when its model is not the fleet's (pinned while the fleet has a worker or a session) or when
        the id belongs to another fleet.
        """
        fields = {"fleet": _name("fleet", fleet), "url": url, "slots": slots, "fingerprint": fingerprint}
        # The namespace first: one that is listed and empty is harmless, one that is not listed would never be reaped.
        await self._transport.command("SADD", _NAMESPACES, _name("namespace", namespace))
        return await self._call(
            "put_worker", namespace, WorkerRecord, id=_id("worker", worker), cordoned=cordoned, **fields
        )

    async def drop_worker(self, namespace: str, worker: str) -> bool:
        """Forget a worker; its idle sessions are hibernated, its running turns move or run out. False: not known."""
        return await self._known("drop_worker", namespace, worker)

    async def cordon(self, namespace: str, worker: str, *, on: bool) -> bool:
        """Place nothing new there (or again). Running turns go on. False: not known."""
        return await self._known("cordon", namespace, worker, on=on)

    async def suspect(self, namespace: str, worker: str, *, for_s: float) -> bool:
        """Place nothing there for so long (0: trust it again). False: not known."""
        return await self._known("suspect", namespace, worker, for_us=_us(for_s))

    async def hibernate(self, namespace: str, name: str, *, uid: str | None = None) -> Closed:
        """Take an idle session's slot away; `release` says what to wipe. A running one keeps it (`deferred`)."""
        return await self._named("hibernate", namespace, name, Closed, uid=uid)

    async def worker(self, namespace: str, worker: str) -> WorkerRecord | None:
        """None: not known."""
        found = await self._call("workers", namespace, list[WorkerRecord], id=_id("worker", worker))
        return found[0] if found else None

    async def workers(self, namespace: str, *, fleet: str | None = None) -> list[WorkerRecord]:
        """Return the registered workers by id."""
        return await self._call("workers", namespace, list[WorkerRecord], fleet=fleet)

    async def fleet(self, namespace: str, name: str) -> FleetView:
        """Raises `NoSuchFleet`."""
        return await self._named("fleet", namespace, name, FleetView)

    async def fleets(self, namespace: str) -> list[str]:
        """Return the names of the fleets that ever had a worker here."""
        return await self._call("fleets", namespace, list[str])

    # The whole ------------------------------------------------------------------------------------------------------

    async def reap(self, namespace: str, *, limit: int = 100) -> Reaped:
        """Do what is due by Redis's clock: close and hibernate idle sessions, end turns whose gateway died.

        Any gateway may call it at any time, several at once: each thing is done once.
        """
        return await self._call("reap", namespace, Reaped, limit=limit)

    async def namespaces(self) -> list[str]:
        """Return the namespaces that ever had a worker."""
        return sorted(name.decode() for name in await self._transport.command("SMEMBERS", _NAMESPACES))

    async def changes(self, namespace: str, *, after: str | None = None, limit: int = 1000) -> Changes:
        """Return what moved since the cursor; None: nothing but the cursor of now (take it, list, then follow).

        Raises `CursorGone` when entries after it were trimmed, Redis was restarted or replaced since, or it is not a
        cursor: list again.
        """
        fields: dict[str, Any] = {"limit": limit}
        if after is not None:
            ledger, _, position = after.partition(":")
            if not position.isdecimal() or len(position) > _CURSOR_DIGITS:
                raise CursorGone("not a cursor of this ledger: list again")
            fields |= {"id": ledger, "after": int(position)}
        reply = await self._ask("changes", namespace, fields | {"fresh": uuid.uuid4().hex})
        answer = msgpack.decode(reply)
        return Changes(f"{answer['id']}:{answer['last']}", convert(answer["changes"], list[Change]))

    async def ledger_id(self, namespace: str) -> str:
        """Return the id of this namespace's ledger in this run of Redis; another one: list everything again."""
        return (await self.changes(namespace)).cursor.partition(":")[0]

    # Calls ----------------------------------------------------------------------------------------------------------

    async def _named(self, script: str, namespace: str, name: str, kind: type[T], **fields: Any) -> T:
        return await self._call(script, namespace, kind, name=_name("session", name), **fields)

    async def _fenced(self, script: str, fence: Fence, kind: type[T], **fields: Any) -> T:
        return await self._call(script, fence.namespace, kind, fence=to_builtins(fence), **fields)

    async def _of_each_turn(self, field: str, namespace: str, name: str, uid: str, span: Span) -> list[bytes]:
        fields = [f"{field}:{position}" for position in range(span.start, span.stop)]
        values: list[bytes]
        there, *values = await self._transport.command("HMGET", f"{_prefix(namespace)}session:{name}", "uid", *fields)
        if there != uid.encode():
            raise NoSuchSession(f"no session {namespace}/{name} with this uid any more")
        if None in values:
            raise HistoryLost(f"the ledger no longer has all turns of {namespace}/{name}")
        return values

    async def _known(self, script: str, namespace: str, worker: str, **fields: Any) -> bool:
        answer = await self._call(script, namespace, dict[str, bool], id=_id("worker", worker), **fields)
        return answer["known"]

    async def _call(self, script: str, namespace: str, kind: type[T], **fields: Any) -> T:
        return msgpack.decode(await self._ask(script, namespace, fields), type=kind)

    async def _ask(self, script: str, namespace: str, fields: dict[str, Any]) -> bytes:
        return _checked((await self._send(script, namespace, fields))[0])

    async def _send(
        self, script: str, namespace: str, fields: dict[str, Any], *blobs: bytes, wait: bool = False
    ) -> tuple[bytes | list[bytes], int]:
        fields["call"] = f"{self._process}-{next(self._calls)}"
        return await self._transport.run(
            self._scripts[script], _prefix(namespace), msgpack.encode(fields), *blobs, wait=wait
        )


def _checked(reply: bytes | list[bytes]) -> bytes:
    """Return the msgpack of an accepted call; raise what a refused one says."""
    if isinstance(reply, bytes):
        return reply
    kind, said = reply
    members = msgpack.decode(said)
    raise _REFUSALS[kind.decode()](members.pop("message"), **members)


def _prefix(namespace: str) -> str:
    return f"berth:{{{_name('namespace', namespace)}}}:"


def _name(field: str, value: str) -> str:
    if not _NAME.fullmatch(value):
        raise InvalidRequest(f"{field} {value!r:.80} is no name (RFC 1123)", field=field)
    return value


def _id(field: str, value: str) -> str:
    if not _ID.fullmatch(value):
        raise InvalidRequest(f"{field} {value!r:.80} must be 1 to 200 of A-Z a-z 0-9 . _ -", field=field)
    return value


def _us(seconds: float | None) -> int:
    return round((seconds or 0.0) * 1e6)
