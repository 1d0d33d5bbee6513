"""Sessions whose resource is gone, found by what two complete lists do not have.

A deletion that the watch tells of closes its session at once; this is the net for those it did not tell of. Closing
ends a conversation for good, so one list that came back short must not be enough.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from berth_operator.kube.store import Key
from berth_operator.since import since


class Gone(NamedTuple):
    """A session whose resource is gone, by the uid that the resource had."""

    key: Key
    uid: str
    retain: bool = False
    """Whether the resource wanted its conversation kept when it was last seen."""


class Absences:
    """Remembers since when each session's resource has been missing from every list."""

    def __init__(self, absent_s: float) -> None:
        self._absent_s = absent_s
        self._since: dict[Gone, float] = {}

    def due(self, sessions: Iterable[Gone], listed: AbstractSet[str], now: float) -> list[Gone]:
        """Return the sessions to close. `listed` has the uids of a complete list that was made after `sessions`."""
        missing = [gone for gone in sessions if gone.uid not in listed]
        self._since = since(self._since, missing, now)
        return [gone for gone, first in self._since.items() if now - first >= self._absent_s]
