"""Sessions whose resource is gone, found by what two complete lists do not have.

A deletion that the watch tells of closes its session at once; this is the net for those it did not tell of. Closing
ends a conversation for good, so one list that came back short must not be enough.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from berth_operator.kube.store import Key
from berth_operator.since import since


class Lost(NamedTuple):
    """A session of the ledger without a resource."""

    key: Key
    uid: str


class Absences:
    """Remembers since when each session's resource has been missing from every list."""

    def __init__(self, absent_s: float) -> None:
        self._absent_s = absent_s
        self._since: dict[Lost, float] = {}

    def due(self, sessions: Iterable[Lost], listed: set[str], now: float) -> list[Lost]:
        """Return the sessions to close. `listed` has the uids of a complete list that was made after `sessions`."""
        missing = [lost for lost in sessions if lost.uid not in listed]
        self._since = since(self._since, missing, now)
        return [lost for lost, first in self._since.items() if now - first >= self._absent_s]
