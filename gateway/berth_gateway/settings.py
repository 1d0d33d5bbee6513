"""Every time and limit of the gateway, in groups: each with its unit and the reason for its default."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from berth_gateway.ledger.settings import LedgerSettings


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """The public listener and the admin listener."""

    host: str = "127.0.0.1"
    """Loopback: being reachable from elsewhere is asked for, never a surprise."""
    port: int = 8080
    admin_host: str = "127.0.0.1"
    admin_port: int = 8081
    body_bytes: int = 8 << 20
    """Largest request body: a million ids written as JSON, several times any context."""
    body_s: float = 30.0
    """Longest a client may take to send its body: a slow one must not hold a connection for ever."""
    idle_connection_s: float = 75.0
    """Keep-alive of an idle connection, above the 60 s after which most load balancers let go themselves."""
    drain_s: float = 60.0
    """How long running turns may go on after SIGTERM; below the chart's termination grace period."""


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """What one client of a stream may cost."""

    buffer_bytes: int = 1 << 20
    """Unsent events kept for a client: about 8,000 tokens behind. Beyond it the client counts as gone."""
    write_s: float = 30.0
    """Longest one write may wait for the client's window to open."""
    keep_alive_s: float = 10.0
    """A comment after so long a silence: below the usual 30 to 60 s of proxies."""


@dataclass(frozen=True, slots=True)
class TurnSettings:
    """The turn's own clock."""

    lease_s: float = 5.0
    """How long a dead gateway blocks its session: a few missed renewals, and a person still waits."""
    lease_margin: float = 0.1
    """Part of the lease given up at its end, against clocks that differ and a loop that is late."""
    max_moves: int = 2
    """A turn that kills its worker must not walk through the fleet."""
    attempts_per_worker: int = 5
    """Refusals (stale, history_required, duplicate) answered on one worker: an honest exchange takes two."""
    capacity_wait_s: float = 30.0
    """How long a turn waits for a worker: the restart of one with a small model."""
    capacity_pause_s: float = 0.25
    """Between two tries: short beside the wait, long beside the ledger's answer."""
    commit_s: float = 20.0
    """How long a commit is tried again before the turn is said to be unknown: a Redis restart with a large AOF."""
    abort_s: float = 3.0
    """How long an abort is tried again: without it the lease's end does the same."""
    retry_pause_s: float = 0.1
    """Between two tries of a commit or an abort."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How workers are called, and when one counts as failed."""

    connect_s: float = 2.0
    """Longest TCP connect: within a cluster, more means that the pod is gone."""
    call_s: float = 5.0
    """Longest small call (model, stop, release, info)."""
    health_s: float = 2.0
    """Longest health check of a worker that went silent."""
    stall_s: float = 20.0
    """Silence of a turn after which the worker's health is asked for: above the prefill of a full context."""
    suspect_s: float = 10.0
    """How long nothing is placed on a worker that failed: the operator learns of a dead pod within it."""
    event_bytes: int = 4 << 20
    """Largest event of a worker: one token with 20 alternatives takes a thousandth of it."""
    file_bytes: int = 256 << 20
    """Largest tokenizer file."""


@dataclass(frozen=True, slots=True)
class RateSettings:
    """How many sessions and turns one caller may begin: an API key, or a namespace where there are none."""

    per_second: float | None = None
    """Requests a second, at each gateway. None: unlimited, for only its owner knows what a fleet is for."""
    burst_s: float = 2.0
    """Unused rate that is kept, in seconds of it (one request at least): an agent opens and speaks at once."""
    most_buckets: int = 10_000
    """Callers remembered, about 2 MB: a client that makes up namespaces must not fill the memory."""


RATES = (0.001, 1_000_000.0)
"""Lowest and highest rate that can be asked for, a second: below it a wait is hours, above it no process goes."""


@dataclass(frozen=True, slots=True)
class ReaperSettings:
    """The background pass over idle sessions and turns without a gateway."""

    every_s: float = 1.0
    """Idle times are minutes; a lost turn should read `aborted` soon after its lease."""


@dataclass(frozen=True, slots=True)
class AuthSettings:
    """Who may call."""

    api_keys: Path | None = None
    """JSON file of hashed keys; None: open to everyone, only by an explicit choice."""
    admin_token: str | None = None
    """None: the admin port is open, which `__main__` allows with `--no-auth` alone."""
    worker_token: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    redis_url: str
    http: HttpSettings = field(default_factory=HttpSettings)
    stream: StreamSettings = field(default_factory=StreamSettings)
    turn: TurnSettings = field(default_factory=TurnSettings)
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    rate: RateSettings = field(default_factory=RateSettings)
    reaper: ReaperSettings = field(default_factory=ReaperSettings)
    auth: AuthSettings = field(default_factory=AuthSettings)
    ledger: LedgerSettings = field(default_factory=LedgerSettings)
