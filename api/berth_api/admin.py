"""Messages of the gateway's admin API. Its only callers are the operator and the local fleet."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from berth_api.public import Name, OnWorkerFailure, Seconds, SessionView, TokenLimit, TurnCount

DeletionPolicy = Literal["Close", "Retain"]
RecoveryReason = Literal["worker_lost", "drained"]


class WorkerPut(Struct, frozen=True, forbid_unknown_fields=True):
    """PUT /admin/workers/{id}: this worker serves that fleet. The gateway asks the worker itself for the rest."""

    namespace: str
    fleet: str
    url: str
    cordoned: bool = False


class WorkerFound(Struct, frozen=True, forbid_unknown_fields=True):
    """POST /admin/workers: a pod with this `uid` should serve that fleet at `url`. The worker there says which it is.

    Registered where its id begins with `<uid>.`; another one is 400, one that cannot be asked 503.
    """

    uid: Annotated[str, Meta(min_length=1, max_length=128)]
    namespace: Name
    fleet: Name
    url: str
    cordoned: bool = False


class WorkerView(Struct, frozen=True):
    """GET /admin/workers[/{id}]."""

    id: str
    namespace: str
    fleet: str
    url: str
    slots: int
    fingerprint: str
    cordoned: bool
    suspect: bool
    running: list[str]
    """Sessions (names) with a turn running there."""
    idle: list[str]
    """Sessions (names) that hold a slot there, least recently used first."""
    waiting: int = 0
    """Turns that wait for capacity of the worker's fleet."""


class SessionPut(Struct, frozen=True, forbid_unknown_fields=True):
    """PUT /admin/sessions/{ns}/{name}: a resource wants this session. Idempotent by `uid`.

    Another uid of origin `cr` under the name is closed at once; one of origin `http` is a NameConflict (409
    `session_exists`).
    """

    uid: str
    fleet: str
    idle_timeout_s: Seconds | None = None
    hibernate_after_s: Seconds | None = None
    max_tokens: TokenLimit | None = None
    deletion_policy: DeletionPolicy = "Close"
    on_worker_failure: OnWorkerFailure = "continue"
    suspend: bool = False
    bind: bool = False
    """Take a free slot for it if there is one; never evicts."""
    head: str | None = None
    turns: TurnCount | None = None
    """What the resource last saw: a ledger that has less says `history_lost` instead of starting empty."""


class Recovery(Struct, frozen=True, rename={"from_": "from"}):
    """A session lost its worker while it held a slot or ran a turn there, and came to another. Both are worker ids."""

    from_: str
    to: str
    reason: RecoveryReason
    """`drained`: the worker was cordoned before it went."""
    at: float
    """When it came to the other, seconds since the epoch."""


class AdminSession(SessionView, frozen=True, kw_only=True):
    """GET and PUT /admin/sessions/{ns}/{name}: a session as its resource has to know it."""

    closing: str | None = None
    """Why it closes as soon as its turn ends."""
    suspended: bool = False
    lost: bool = False
    """The ledger has less than the resource once saw: every turn is refused with `history_lost`."""
    stranded: bool = False
    """Its worker was lost under it and it has not come to another yet."""
    recoveries: int = 0
    last_recovery: Recovery | None = None
    idle_timeout_s: float | None = None
    hibernate_after_s: float | None = None
    max_tokens: int | None = None
    on_worker_failure: OnWorkerFailure = "continue"
    deletion_policy: DeletionPolicy = "Close"


class AdminSessions(Struct, frozen=True):
    """GET /admin/sessions?namespace[&origin][&limit][&after]: by name; `next` is the `after` of the rest.

    A page may be short, even empty, and not be the last one.
    """

    sessions: list[AdminSession]
    next: str | None = None


class Namespaces(Struct, frozen=True):
    """GET /admin/namespaces: those that ever had a worker."""

    namespaces: list[str]


class FleetView(Struct, frozen=True):
    """GET /admin/fleets/{ns}/{name}."""

    namespace: str
    name: str
    fingerprint: str
    slots: int
    resident: int
    """Sessions that hold a slot; of them `running` have a turn there, the others only hold it."""
    running: int
    free: int
    """Slots of workers that take turns, cordoned and suspect ones left out."""
    pending: int
    """Turns that wait for capacity."""
    hibernated: int
    """Sessions that hold no slot and wait for none."""
    workers: int


class Change(Struct, frozen=True):
    """One entry of GET /admin/changes: something about this session or worker moved; read it again."""

    kind: Literal["session", "worker", "fleet"]
    name: str
    what: str


class Changes(Struct, frozen=True):
    cursor: str
    changes: list[Change]
