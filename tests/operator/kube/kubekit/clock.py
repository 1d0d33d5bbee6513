"""Time that passes when a test says so."""

from __future__ import annotations

from berth_operator.kube.conditions import timestamp

START = 1_790_000_000.0


class Clock:
    """Seconds since the epoch, as `time.time` gives them."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds

    def stamp(self, ago: float = 0.0) -> str:
        """Return how Kubernetes writes the time so many seconds ago."""
        return timestamp(self.now - ago)
