"""The page pool: which pages of the KV pool are free. Knows no tensors, so it tests on any machine.

A page is owned by exactly one row of the page table, or it is free. The pool believes nobody: a page given back twice,
or one that it never had, is an `AccountingError` at once, where the culprit is still on the stack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from berth_worker.cache.errors import AccountingError, OutOfMemory

if TYPE_CHECKING:
    from numpy.typing import NDArray


class PagePool:
    """A stack of free page ids `0 … num_pages - 1`; the page freed last is taken first, while it is warm."""

    def __init__(self, num_pages: int, page_size: int) -> None:
        if num_pages < 1 or page_size < 1:
            raise ValueError(f"a pool needs pages and a page size, got {num_pages} pages of {page_size} tokens")
        self.num_pages = num_pages
        self.page_size = page_size
        self._stack = np.arange(num_pages - 1, -1, -1, dtype=np.int32)
        self._free = num_pages
        self._is_free = np.ones(num_pages, dtype=np.bool_)

    @property
    def free(self) -> int:
        """Pages that nobody owns."""
        return self._free

    def pages_for(self, tokens: int) -> int:
        """Return how many pages hold `tokens` tokens."""
        return -(-tokens // self.page_size)

    def take(self, count: int) -> NDArray[np.int32]:
        """Return `count` free pages (int32 ids). Raises `OutOfMemory`, taking none, if fewer are free."""
        if count > self._free:
            raise OutOfMemory(f"{count} pages asked for, {self._free} free")
        taken = self._stack[self._free - count : self._free][::-1].copy()
        self._free -= count
        self._is_free[taken] = False
        return taken

    def give(self, pages: NDArray[np.int32]) -> None:
        """Take `pages` back. Raises `AccountingError`, taking none, if one of them is free already or named twice."""
        if not len(pages):
            return
        if pages.min() < 0 or pages.max() >= self.num_pages:
            raise AccountingError(f"pages outside the pool of {self.num_pages} given back: {pages.tolist()}")
        if self._is_free[pages].any() or len(np.unique(pages)) != len(pages):
            raise AccountingError(f"pages given back twice: {pages.tolist()}")
        self._is_free[pages] = True
        self._stack[self._free : self._free + len(pages)] = pages[::-1]
        self._free += len(pages)
