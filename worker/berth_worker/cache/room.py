"""Where pages and rows come from when none are free: from KV that nobody works on, in the order that promises no
deadlock. First what the tree keeps for nobody, then slots without an admitted request. What runs is not asked here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from berth_worker.cache.kv import KVCache
    from berth_worker.cache.sessions import Slot, Slots


class Room:
    """Makes room in `cache`, at the cost of `slots`."""

    def __init__(self, cache: KVCache, slots: Slots) -> None:
        self._cache, self._slots = cache, slots

    def there(self, pages: int, rows: int) -> bool:
        """Say whether so many can be had without evicting a slot."""
        return pages <= self._cache.spare and rows <= self._cache.rows.free

    def possible(self, pages: int, rows: int, giving_way: Sequence[Slot]) -> bool:
        """Say whether so many can be had at all: exactly, with what only these slots' locks keep in the tree."""
        cache, holdings = self._cache, [slot.holding for slot in giving_way]
        nodes = [holding.node for holding in holdings if holding.node is not None]
        most = cache.pool.free + cache.tree.evictable_without(nodes) + sum(map(cache.own_pages, holdings))
        return pages <= most and rows <= cache.rows.free + len(holdings)

    def make(self, pages: int, rows: int, giving_way: Sequence[Slot]) -> bool:
        """Evict slots in order until so many pages can be had, and rows; say whether they can."""
        for slot in giving_way:
            if self.there(pages, rows):
                return True
            self._slots.release(slot.key, "evicted")
        return self.there(pages, rows)
