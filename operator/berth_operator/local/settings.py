"""What a local fleet is made of, and how long it waits for its parts. Every time is in seconds."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from berth_operator.model import FleetKey
from berth_operator.policy import Policy

LOOPBACK = "127.0.0.1"
"""A local fleet is open to whoever reaches it, so it listens where only this machine does."""

_DEFAULT = FleetKey("default", "default")


def share_of_cores(workers: int) -> int:
    """Return how many threads each of so many workers may use without taking the others' cores."""
    return max(1, len(os.sched_getaffinity(0)) // max(1, workers))


@dataclass(frozen=True)
class Commands:
    """How each part is started: the programs, without their options."""

    worker: tuple[str, ...] = (sys.executable, "-m", "berth_worker")
    gateway: tuple[str, ...] = (sys.executable, "-m", "berth_gateway")
    redis: tuple[str, ...] | None = None
    """None: the server found on this machine."""


@dataclass(frozen=True)
class Times:
    """How long the fleet's keeper waits."""

    tick_s: float = 1.0
    """Between two looks at the world when nothing happens: what no event announces is seen this late."""
    health_every_s: float = 1.0
    """Far below the liveness limit, so that one lost answer decides nothing."""
    health_timeout_s: float = 5.0
    """A busy single-core machine may take seconds to answer; that is not death."""
    admin_timeout_s: float = 5.0
    """After this a gateway counts as silent and the next one is asked."""
    poll_s: float = 0.05
    """Between two questions to what gives no word of its own: Redis, and the fleet as a whole, while they come up."""
    redis_start_s: float = 60.0
    """Redis reads its whole log before it answers."""
    lock_s: float = 3.0
    """The processes of a fleet that was killed need a moment to be gone."""
    drain_s: float = 4.0
    """At the end: for turns to finish. All ends add up to less than the 10 s that a person waits."""
    redis_stop_s: float = 3.0
    """For Redis to write what it holds."""
    stop_grace_s: float = 30.0
    """For a worker that is removed while the fleet goes on."""


@dataclass(frozen=True)
class LocalSettings:
    """A whole fleet on one machine."""

    state_dir: Path
    model: str
    workers: int = 2
    gateways: int = 1
    gateway_port: int = 0
    """Of the first gateway; the others', and 0, are picked by the system."""
    key: FleetKey = _DEFAULT
    worker_options: tuple[str, ...] = ()
    """Passed to every worker as they are."""
    gateway_options: tuple[str, ...] = ()
    commands: Commands = field(default_factory=Commands)
    times: Times = field(default_factory=Times)
    policy: Policy = field(default_factory=Policy)

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"a fleet needs at least 1 worker, not {self.workers}")
        if self.gateways < 1:
            raise ValueError(f"a fleet needs at least 1 gateway, not {self.gateways}")
        if not 0 <= self.gateway_port <= 65535:
            raise ValueError(f"a port is between 0 and 65535, not {self.gateway_port}")
