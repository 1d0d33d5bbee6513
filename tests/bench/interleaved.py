"""Times taken in turns, so that the machine's moods hit all alike, and ratios taken within a turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

RUNS, WITHIN_S = 7, 0.25
"""Turns, and the seconds in which a turn repeats an act to take its fastest time."""


def interleaved(acts: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Return the milliseconds of each act, a turn each."""
    for act in acts.values():
        act()
    times: dict[str, list[float]] = {name: [] for name in acts}
    for _ in range(RUNS):
        for name, act in acts.items():
            times[name].append(1000 * _fastest(act))
    return times


def _fastest(act: Callable[[], Any]) -> float:
    best, until = float("inf"), time.perf_counter() + WITHIN_S
    while True:
        began = time.perf_counter()
        act()
        best = min(best, time.perf_counter() - began)
        if time.perf_counter() > until:
            return best


def middle(values: list[float]) -> float:
    return statistics.median(values)


def ratio(upper: list[float], lower: list[float], *, percent: bool = False) -> str:
    """Return the median of the turns' ratios, with the least and the most."""
    ratios = [a / b for a, b in zip(upper, lower, strict=True)]
    form = "{:.0%}" if percent else "{:.2f}"
    found, least, most = (form.format(of(ratios)) for of in (middle, min, max))
    return f"{found} ({least} … {most})"
