"""The page table: one row a request or slot, the page ids of its positions in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from berth_worker.cache.errors import AccountingError, OutOfMemory

if TYPE_CHECKING:
    from numpy.typing import NDArray


class RowTable:
    """`rows` rows of `width` page ids (int32). Which entries of a row are valid is known by who holds the row."""

    def __init__(self, rows: int, width: int) -> None:
        if rows < 1 or width < 1:
            raise ValueError(f"a page table needs rows and columns, got {rows} x {width}")
        self.total = rows
        self.width = width
        self._table = np.zeros((rows, width), dtype=np.int32)
        self._free = list(range(rows - 1, -1, -1))

    @property
    def free(self) -> int:
        """Rows that nobody holds."""
        return len(self._free)

    def take(self) -> int:
        """Return a free row. Raises `OutOfMemory` if there is none."""
        if not self._free:
            raise OutOfMemory(f"all {self.total} rows are held")
        return self._free.pop()

    def give(self, row: int) -> None:
        """Take `row` back. Raises `AccountingError` if it is free already or none of ours."""
        if not 0 <= row < self.total or row in self._free:
            raise AccountingError(f"row {row} of {self.total} given back twice or never taken")
        self._free.append(row)

    def pages(self, row: int) -> NDArray[np.int32]:
        """Return the whole row (a view, `width` page ids)."""
        view: NDArray[np.int32] = self._table[row]
        return view
