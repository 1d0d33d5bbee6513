"""What the ledger answers: frozen records, decoded straight from the scripts' msgpack replies.

Times are seconds since the epoch on Redis's clock: no gateway's own clock ever decides about a session.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from berth_api.admin import DeletionPolicy, Recovery
from berth_api.public import OnWorkerFailure, Origin, State, Usage
from berth_api.wire import FinishReason

OrderMode = Literal["stop", "abort"]


class Limits(Struct, frozen=True):
    """What a session was opened with; a resource may change it later by opening the same uid again."""

    idle_timeout_s: float | None = None
    """Closed after so long without a turn."""
    hibernate_after_s: float | None = None
    """Loses its slot after so long without a turn."""
    max_tokens: int | None = None
    """Cap of history + input + output."""
    on_worker_failure: OnWorkerFailure = "continue"
    deletion_policy: DeletionPolicy = "Close"
    """What becomes of it when its resource goes: closed, or kept as an `http` session."""


class SessionRecord(Struct, frozen=True, kw_only=True):
    """A session as the ledger has it, without its tokens."""

    namespace: str
    name: str
    uid: str
    origin: Origin
    fleet: str
    fingerprint: str
    """Of the model it was opened with, for life."""
    state: State
    head: str
    turns: int
    tokens: int
    epoch: int
    worker: str | None = None
    """The worker that holds its slot; None when hibernated."""
    turn: str | None = None
    """The turn that runs (its lease is alive)."""
    created: float
    last_active: float
    limits: Limits
    closing: str | None = None
    """Why it closes as soon as its turn ends."""
    suspended: bool = False
    """Its resource wants no turns on it now."""
    lost: bool = False
    """The ledger has less than its resource once saw: every turn is refused with `history_lost`."""
    stranded: bool = False
    """Its worker was lost while it held a slot or ran a turn there, and it has not come to another yet."""
    recoveries: int = 0
    """How often it was and did."""
    last_recovery: Recovery | None = None


class SessionPage(Struct, frozen=True, kw_only=True):
    """Sessions of one namespace in order of name; pass `next` as `after` for the rest."""

    sessions: list[SessionRecord]
    next: str | None = None


class Fence(Struct, frozen=True):
    """The right to end one attempt at one turn. (epoch, attempt, turn) decide; `holder` names the tenure for `renew`.

    A fence is never edited: `move` and `lift` answer with the next one, and the old one is void from then on.
    """

    namespace: str
    name: str
    uid: str
    turn: str
    epoch: int
    attempt: int
    holder: str


class Placement(Struct, frozen=True):
    """Where an attempt runs. `holds_parent`: the ledger believes that this worker's slot holds the parent head."""

    worker: str
    url: str
    holds_parent: bool


class Release(Struct, frozen=True):
    """KV that may be wiped, by `wire.ReleaseRequest(uid, epoch)`. Best effort; the worker fences by epoch."""

    namespace: str
    name: str
    uid: str
    epoch: int
    worker: str
    url: str


class Outcome(Struct, frozen=True):
    """What became of a turn.

    `running`: its lease is alive. `unknown`: its lease ran out, no one has taken over; it may still commit. The ids of
    a committed turn are `history(…, position, position + 1)`: `input_tokens` of input, the rest output.
    """

    turn: str
    state: Literal["running", "committed", "aborted", "unknown"]
    digest: str
    """Of the request's payload, as given to `acquire`."""
    epoch: int
    head: str
    """Committed: the head after it. Else the session's head, which it did not move."""
    input_tokens: int
    worker: str | None = None
    moves: int = 0
    position: int | None = None
    """Committed: its index in the session's turns, from 0."""
    finish: FinishReason | None = None
    usage: Usage | None = None
    reason: str | None = None
    """Aborted: why."""
    retry_safe: bool = True


class Acquired(Struct, frozen=True, kw_only=True):
    """The turn is yours: run it at `placement` from `parent`, renew before `lease_s` is over, then commit or abort."""

    fence: Fence
    parent: str
    turns: int
    """Committed so far; this turn's position if it commits."""
    tokens: int
    """Of the history, without this turn."""
    seed: int
    """The request's, or `heads.default_seed(uid, parent, turn)`: a rerun from the same parent draws the same."""
    placement: Placement
    fingerprint: str
    max_tokens: int | None = None
    on_worker_failure: OnWorkerFailure
    lease_s: float
    """From the ledger's decision on; count it from before the call was sent."""
    release: Release | None = None
    """Another session lost its slot there to make room."""


class Known(Struct, frozen=True):
    """The turn was committed before: nothing runs, this is what it came to."""

    uid: str
    outcome: Outcome


class Moved(Struct, frozen=True):
    """The next attempt: `fence` replaces the old one."""

    fence: Fence
    placement: Placement
    moves: int
    """How often this turn has changed its worker."""
    lease_s: float
    release: Release | None = None


class Renewed(Struct, frozen=True, kw_only=True):
    """`lease_s` as in `Acquired`; `order` is what another gateway asked of this turn, if anything."""

    lease_s: float
    order: OrderMode | None = None


class Order(Struct, frozen=True):
    """A stop or abort of a running turn, as heard on the fast path."""

    namespace: str
    name: str
    uid: str
    turn: str
    mode: OrderMode


class Opened(Struct, frozen=True):
    """`created` is False where the session was there already. `releases`: slots given up by this call."""

    session: SessionRecord
    created: bool
    releases: list[Release]


class Closed(Struct, frozen=True):
    """`deferred`: a turn runs, the session closes when it ends. `retained`: its resource left it to HTTP instead."""

    uid: str
    deferred: bool = False
    retained: bool = False
    release: Release | None = None


class Ended(Struct, frozen=True):
    """The turn is over, or was told to end; after a commit it is in the history.

    `closed`: a deferred close was carried out.
    `release`: the KV of the closed session, or of one for which the worker has no slot any more.
    """

    outcome: Outcome
    closed: bool = False
    release: Release | None = None


class History(Struct, frozen=True):
    """Turns from `start` on, each packed little-endian int32; they chain from the head `base` to `head`."""

    start: int
    base: str
    head: str
    turns: list[bytes]


class Span(Struct, frozen=True):
    """Where a history lies: turns [start, stop), from the head `base` to `head`."""

    start: int
    stop: int
    base: str
    head: str


class WorkerRecord(Struct, frozen=True):
    """A registered worker."""

    id: str
    namespace: str
    fleet: str
    url: str
    slots: int
    fingerprint: str
    cordoned: bool
    suspect: bool
    running: list[str]
    """Names of sessions with a turn running there."""
    idle: list[str]
    """Names of sessions that only hold a slot there, least recently used first."""
    waiting: int
    """Turns that wait for capacity of its fleet."""


class Reaped(Struct, frozen=True):
    """What one pass of `reap` did. `more`: the batch was full, call again."""

    closed: list[str]
    hibernated: list[str]
    expired: list[str]
    """Sessions whose running turn lost its gateway: the turn is recorded as aborted."""
    releases: list[Release]
    more: bool
