"""How many workers a fleet wants that follows its load: enough for every slot in use, and a few free ones.

Slots, not requests, are what runs out: a session that holds one keeps its KV even while it is silent. Growing is at
once, since somebody waits; shrinking only when the load has been lower for a while, since every removal costs the KV of
the sessions that held a slot there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Bounds:
    """What the fleet's owner allows."""

    least: int
    most: int
    buffer_slots: int
    """Free slots to keep ready for sessions to come. With any, there is always a worker."""


@dataclass(frozen=True)
class Demand:
    """What the gateways see of the fleet's load."""

    held: int
    """Slots that sessions hold, running or idle."""
    waiting: int
    """Turns that wait for capacity: each will want a slot."""


def wanted(bounds: Bounds, slots: int, demand: Demand) -> int:
    """Return the number of workers with `slots` slots each that the load wants now."""
    used = demand.held + demand.waiting
    return max(bounds.least, min(bounds.most, math.ceil((used + bounds.buffer_slots) / slots)))


class Stabilizer:
    """Remembers what was wanted: a number is followed down only once nothing higher was wanted for the whole window.

    What it does not remember counts as high: after a restart nothing shrinks before a whole window has been seen.
    """

    def __init__(self, before: int, now: float) -> None:
        self._wanted: list[tuple[float, int]] = [(now, before)]

    def follow(self, number: int, now: float, window_s: float) -> int:
        """Return the number to have now."""
        self._wanted = [(at, n) for at, n in self._wanted if now - at < window_s and n > number]
        self._wanted.append((now, number))
        return max(n for _, n in self._wanted)
