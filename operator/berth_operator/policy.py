"""When the plan loses patience. Every limit is a decision about a worker that may only be slow."""

from __future__ import annotations

from dataclasses import dataclass, field

from berth_operator.model import Restarts


@dataclass(frozen=True)
class Backoff:
    """Waits between an end and the next start. All in seconds."""

    first_s: float = 0.5
    """The second restart's wait: the first is at once, since most deaths are accidents and each costs capacity."""
    limit_s: float = 5.0
    """No wait is longer: what hinders the start may be gone any moment, and a try is cheap beside an outage."""

    def wait(self, failures: int) -> float:
        """Return the wait in seconds before the start that follows the given number of failures in a row."""
        if failures <= 1:
            return 0.0
        # The exponent is bounded: a worker may fail for days, and 2.0 ** 1100 is an error.
        return min(self.limit_s, self.first_s * 2.0 ** min(failures - 2, 32))

    def due(self, restarts: Restarts) -> float:
        """Return the time from which the next start may happen."""
        return restarts.last + self.wait(restarts.failures)


@dataclass(frozen=True)
class Policy:
    """Limits of a fleet's life. All in seconds."""

    liveness_s: float = 60.0
    """`/health` has to fail this long before a worker is killed: the gateways route around a silent worker after
    seconds, so killing only regains capacity, while killing a slow one loses the KV of all its sessions."""
    start_s: float = 900.0
    """A worker that is not ready after this long is killed: a large checkpoint from a slow disk takes minutes."""
    drain_s: float = 120.0
    """A cordoned worker is removed after this long even if a turn still runs: the turn then moves to another."""
    backoff: Backoff = field(default_factory=Backoff)
