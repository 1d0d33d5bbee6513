"""Slots: the KV that sessions keep between turns, a layer over the radix tree.

A slot outlives its requests but not memory pressure: releasing one wipes KV and keeps tokens (a native session's ids
live in its registry, a gateway session's in the ledger), so every slot may be taken away from a session that has no
admitted request. While a request runs it works on the slot's own `Holding`: nothing is copied, so nothing can drift,
and whether a slot is lent is asked of the running requests, never remembered here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

    from berth_worker.cache.kv import Holding, KVCache
    from berth_worker.sessions.history import History

SessionKey = tuple[str, str]
"""("native", session id) or ("gateway", uid): the two kinds cannot collide."""

Cause = Literal["aborted", "closed", "evicted", "flushed", "hibernated", "retracted", "rolled_back"]
"""Why a session's KV was wiped. `rolled_back`: the next turn shares less with the slot than the tree owns of it."""


@dataclass(slots=True, eq=False)
class Slot:
    """One session's KV. `history` is what the worker knows of a gateway session; None on a native one."""

    key: SessionKey
    holding: Holding
    history: History | None = None


class Slots:
    """All slots, least recently used first."""

    def __init__(self, cache: KVCache) -> None:
        self._cache = cache
        self._slots: dict[SessionKey, Slot] = {}
        self.releases: Counter[Cause] = Counter()
        """Slots wiped since the start, by cause."""

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots.values())

    def get(self, key: SessionKey | None) -> Slot | None:
        """Return the slot of `key`, if it holds one."""
        return self._slots.get(key) if key is not None else None

    def restore(self, key: SessionKey | None, reuse: int) -> Holding | None:
        """Return the slot's holding cut to the `reuse` tokens that the next request shares with it, or None.

        Idempotent, so that admission may try again. The tail is freed here and nowhere else: over-allocation, a
        rolled-back turn and a retract's shortfall all end the same way.
        """
        slot = self.get(key)
        if slot is None:
            return None
        if reuse < max(1, slot.holding.shared):
            self.release(slot.key, "rolled_back")
            return None
        self._cache.trim(slot.holding, min(reuse, slot.holding.committed))
        return slot.holding

    def save(self, key: SessionKey, holding: Holding, length: int, history: History | None = None) -> None:
        """Keep a finished request's `holding` of a history of `length` tokens as the session's slot, used just now."""
        self._cache.trim(holding, length)
        self._slots.pop(key, None)
        self._slots[key] = Slot(key, holding, history)

    def release(self, key: SessionKey | None, cause: Cause) -> bool:
        """Wipe the session's KV; say whether there was any."""
        slot = self._slots.pop(key, None) if key is not None else None
        if slot is None:
            return False
        self._cache.release(slot.holding)
        self.releases[cause] += 1
        return True

    def evictable(self, lent: Container[SessionKey], queued: Sequence[SessionKey]) -> list[Slot]:
        """Return the slots that give way, first to last: idle, least recently used first, then queued, newest first.

        `queued` lists the sessions that wait, oldest first; `lent` those whose slot a running request works on.
        """
        waiting = set(queued)
        idle = [slot for key, slot in self._slots.items() if key not in lent and key not in waiting]
        late = [self._slots[key] for key in reversed(queued) if key in self._slots and key not in lent]
        return idle + late
