"""Messages of the gateway's admin API. Its only callers are the operator and the local fleet."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from berth_api.public import Seconds, TokenLimit, TurnCount


class WorkerPut(Struct, frozen=True, forbid_unknown_fields=True):
    """PUT /admin/workers/{id}: this worker serves that fleet. The gateway asks the worker itself for the rest."""

    namespace: str
    fleet: str
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
    deletion_policy: Literal["Close", "Retain"] = "Close"
    on_worker_failure: Literal["continue", "abort"] = "continue"
    suspend: bool = False
    bind: bool = False
    """Take a free slot for it if there is one; never evicts."""
    head: str | None = None
    turns: TurnCount | None = None
    """What the resource last saw: a ledger that has less says `history_lost` instead of starting empty."""


class FleetView(Struct, frozen=True):
    """GET /admin/fleets/{ns}/{name}."""

    namespace: str
    name: str
    fingerprint: str
    slots: int
    resident: int
    running: int
    free: int
    pending: int
    """Turns that wait for capacity."""
    hibernated: int
    workers: int


class Change(Struct, frozen=True):
    """One entry of GET /admin/changes: something about this session or worker moved; read it again."""

    kind: Literal["session", "worker", "fleet"]
    name: str
    what: str


class Changes(Struct, frozen=True):
    cursor: str
    changes: list[Change]
