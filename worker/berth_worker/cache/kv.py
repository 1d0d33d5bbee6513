"""KV held by one request or one slot: a row of the page table and how much of it counts.

The three lengths are SGLang's. Every change of them goes through `KVCache`, so that pages, lengths and the radix tree
cannot disagree. A page has one owner at any time: the pool, the tree, or the holding behind its shared prefix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from berth_worker.cache.errors import AccountingError
from berth_worker.cache.radix import RadixTree

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from berth_worker.cache.pages import PagePool
    from berth_worker.cache.radix import Node, Prefix
    from berth_worker.cache.rows import RowTable


@dataclass(slots=True, eq=False)
class Holding:
    """KV of positions `0 … committed - 1`, in pages that reach to `allocated` (tokens).

    `shared` is the page-aligned prefix that belongs to the radix tree (P), locked there by `node` while it is held and
    never freed from here.
    """

    row: int
    committed: int = 0
    allocated: int = 0
    shared: int = 0
    node: Node | None = None


class KVCache:
    """The page pool, the radix tree and the page table, changed together."""

    def __init__(self, pages: PagePool, rows: RowTable) -> None:
        self.pool = pages
        self.rows = rows
        self.tree = RadixTree(pages.page_size)

    @property
    def spare(self) -> int:
        """Pages to be had without taking KV from anybody: free ones and what the tree keeps for nobody."""
        return self.pool.free + self.tree.evictable

    def open(self, prefix: Prefix | None = None) -> Holding:
        """Return a holding of a free row, with nothing or with `prefix`. Raises `OutOfMemory` without a row."""
        holding = Holding(self.rows.take())
        if prefix is not None:
            self._share(holding, prefix)
        holding.committed = holding.allocated = holding.shared
        return holding

    def pages(self, holding: Holding) -> NDArray[np.int32]:
        """Return the page ids of `holding` in order (a view, int32, one entry an allocated page)."""
        return self.rows.pages(holding.row)[: self.pool.pages_for(holding.allocated)]

    def own_pages(self, holding: Holding) -> int:
        """Return the pages that belong to `holding` alone: pages(A) − pages(P)."""
        return self.pool.pages_for(holding.allocated) - self.pool.pages_for(holding.shared)

    def missing_pages(self, holding: Holding, length: int) -> int:
        """Return the pages to allocate before `holding` reaches to `length` tokens."""
        return max(0, self.pool.pages_for(length) - self.pool.pages_for(holding.allocated))

    def grow(self, holding: Holding, length: int) -> None:
        """Allocate pages until `holding` reaches to `length` tokens; what the tree keeps for nobody gives way.

        Raises `OutOfMemory`, changing nothing, if even that is too little.
        """
        missing = self.missing_pages(holding, length)
        if missing:
            if self.pool.free < missing <= self.spare:
                self.pool.give(self.tree.evict(missing - self.pool.free))
            have = self.pool.pages_for(holding.allocated)
            self.rows.pages(holding.row)[have : have + missing] = self.pool.take(missing)
        holding.allocated = max(holding.allocated, length)

    def commit(self, holding: Holding, length: int) -> None:
        """Record that KV up to `length` has been computed."""
        if length > holding.allocated:
            raise AccountingError(f"KV of {length} tokens in pages for {holding.allocated}")
        holding.committed = max(holding.committed, length)

    def publish(self, holding: Holding, ids: NDArray[np.int32]) -> None:
        """Hand the whole pages of `ids`, a prefix of what `holding` has KV of, to the tree, and share them from now on.

        Where the tree has the same ids already, its pages take the place of the holding's own, which are freed.
        """
        if len(ids) > holding.committed:
            raise AccountingError(f"{len(ids)} ids published, KV of {holding.committed} computed")
        count = len(ids) // self.pool.page_size
        had = self.pool.pages_for(holding.shared)
        if count <= had:
            return
        mine = self.pages(holding)[:count].copy()
        inserted = self.tree.insert(ids[: count * self.pool.page_size], mine)
        node = holding.node
        self._share(holding, inserted.prefix)
        if node is not None:
            self.tree.unlock(node)
        self.pool.give(mine[had : inserted.known])

    def trim(self, holding: Holding, length: int) -> None:
        """Free the pages behind `length`: [ceil(length, page), A). What its last page holds beyond stays attached."""
        if length < holding.shared:
            raise AccountingError(f"a trim to {length} would free the {holding.shared} tokens that the tree owns")
        keep = self.pool.pages_for(length)
        self.pool.give(self.pages(holding)[keep:])
        holding.allocated = min(holding.allocated, length)
        holding.committed = min(holding.committed, length)

    def release(self, holding: Holding) -> None:
        """Give back the row, the lock and every page of its own. The holding must not be used afterwards."""
        if holding.node is not None:
            self.tree.unlock(holding.node)
        self.pool.give(self.pages(holding)[self.pool.pages_for(holding.shared) :])
        holding.committed = holding.allocated = holding.shared = 0
        holding.node = None
        self.rows.give(holding.row)

    def forget_prefixes(self) -> None:
        """Empty the tree of everything that nobody holds."""
        self.pool.give(self.tree.evict(self.tree.evictable))

    def _share(self, holding: Holding, prefix: Prefix) -> None:
        """Begin `holding` with the tree's `prefix`, locked."""
        self.tree.lock(prefix.node)
        self.rows.pages(holding.row)[: len(prefix.pages)] = prefix.pages
        holding.node, holding.shared = prefix.node, len(prefix.pages) * self.pool.page_size
