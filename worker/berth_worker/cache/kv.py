"""KV held by one request or one slot: a row of the page table and how much of it counts.

The three lengths are SGLang's. Every change of them goes through `KVCache`, so that pages and lengths cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from berth_worker.cache.errors import AccountingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from berth_worker.cache.pages import PagePool
    from berth_worker.cache.rows import RowTable


@dataclass(slots=True, eq=False)
class Holding:
    """KV of positions `0 … committed - 1`, in pages that reach to `allocated` (tokens).

    `shared` is the page-aligned prefix that belongs to the radix tree (P): locked while held, never freed from here.
    """

    row: int
    committed: int = 0
    allocated: int = 0
    shared: int = 0


class KVCache:
    """The page pool and the page table, changed together."""

    def __init__(self, pages: PagePool, rows: RowTable) -> None:
        self.pool = pages
        self.rows = rows

    def open(self) -> Holding:
        """Return an empty holding of a free row. Raises `OutOfMemory` without one."""
        return Holding(self.rows.take())

    def pages(self, holding: Holding) -> NDArray[np.int32]:
        """Return the page ids of `holding` in order (a view, int32, one entry an allocated page)."""
        return self.rows.pages(holding.row)[: self.pool.pages_for(holding.allocated)]

    def own_pages(self, holding: Holding) -> int:
        """Return the pages that a release of `holding` frees: pages(A) − pages(P)."""
        return self.pool.pages_for(holding.allocated) - self.pool.pages_for(holding.shared)

    def missing_pages(self, holding: Holding | None, length: int) -> int:
        """Return the pages to allocate before `holding` (None: nothing yet) reaches to `length` tokens."""
        allocated = holding.allocated if holding is not None else 0
        return max(0, self.pool.pages_for(length) - self.pool.pages_for(allocated))

    def grow(self, holding: Holding, length: int) -> None:
        """Allocate pages until `holding` reaches to `length` tokens. Raises `OutOfMemory`, changing nothing."""
        missing = self.missing_pages(holding, length)
        if missing:
            have = self.pool.pages_for(holding.allocated)
            self.rows.pages(holding.row)[have : have + missing] = self.pool.take(missing)
        holding.allocated = max(holding.allocated, length)

    def commit(self, holding: Holding, length: int) -> None:
        """Record that KV up to `length` has been computed."""
        if length > holding.allocated:
            raise AccountingError(f"KV of {length} tokens in pages for {holding.allocated}")
        holding.committed = max(holding.committed, length)

    def trim(self, holding: Holding, length: int) -> None:
        """Free the pages behind `length`: [ceil(length, page), A). What its last page holds beyond stays attached."""
        if length < holding.shared:
            raise AccountingError(f"a trim to {length} would free the {holding.shared} tokens that the tree owns")
        keep = self.pool.pages_for(length)
        self.pool.give(self.pages(holding)[keep:])
        holding.allocated = min(holding.allocated, length)
        holding.committed = min(holding.committed, length)

    def release(self, holding: Holding) -> None:
        """Give back the row and every page of its own. The holding must not be used afterwards."""
        self.pool.give(self.pages(holding)[self.pool.pages_for(holding.shared) :])
        holding.committed = holding.allocated = holding.shared = 0
        self.rows.give(holding.row)
