"""Time that passes when a test says so."""

from __future__ import annotations

from berth_operator.kube.conditions import timestamp

START = 1_790_000_000.0


class Killed(BaseException):
    """The operator is no more."""


class Clock:
    """Seconds since the epoch, as `time.time` gives them; and how many calls more the operator lives, if so."""

    def __init__(self) -> None:
        self.now = START
        self.calls_left: int | None = None

    def call(self) -> None:
        """One more call to the outside. Raises Killed."""
        if self.calls_left == 0:
            raise Killed
        if self.calls_left is not None:
            self.calls_left -= 1

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds

    def stamp(self, ago: float = 0.0) -> str:
        """Return how Kubernetes writes the time so many seconds ago."""
        return timestamp(self.now - ago)
