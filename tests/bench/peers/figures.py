"""The arithmetic of the comparison: times of one turn, spreads over rounds, the floor under a token."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Heard:
    """One turn as its client saw it: output ids and when each came. Seconds of the client's monotonic clock."""

    began: float
    ids: list[int] = field(default_factory=list)
    at: list[float] = field(default_factory=list)

    def take(self, ids: Sequence[int], at: float) -> None:
        """Take ids that came together."""
        self.ids += ids
        self.at += [at] * len(ids)

    @property
    def first_ms(self) -> float:
        """Milliseconds to the first id."""
        return 1000 * (self.at[0] - self.began)

    @property
    def later_ms(self) -> float:
        """Milliseconds between later ids, on average. Ids that came with the first count as no time and no id.

        Raises ValueError if none came later.
        """
        later = sum(at > self.at[0] for at in self.at)
        if not later:
            raise ValueError("no id came after the first")
        return 1000 * (self.at[-1] - self.at[0]) / later


@dataclass(frozen=True)
class Spread:
    """The median over rounds, and how far they lie apart."""

    least: float
    middle: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Raises ValueError on no values."""
        if not values:
            raise ValueError("no values")
        return cls(min(values), statistics.median(values), max(values))

    def __str__(self) -> str:
        return f"{_short(self.middle)} ({_short(self.least)} … {_short(self.most)})"


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"


def ratios(values: Sequence[float], base: Sequence[float]) -> Spread:
    """The spread of `values` over `base`, round by round: a ratio is taken within a round, never between two.

    Raises ValueError where there are not equally many.
    """
    return Spread.of([value / beside for value, beside in zip(values, base, strict=True)])


def floor_ms(weights: int, kv: int, ceiling: float) -> float:
    """Milliseconds in which `weights` and `kv` bytes are read at `ceiling` bytes a second: no token can take less."""
    return 1000 * (weights + kv) / ceiling


def agreeing(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids are equal before the first that is not."""
    return next(
        (number for number, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
