"""The page pool and the page table believe nobody."""

from __future__ import annotations

import numpy as np
import pytest

from berth_worker.cache.errors import AccountingError, OutOfMemory
from berth_worker.cache.pages import PagePool
from berth_worker.cache.rows import RowTable


def test_taken_pages_are_distinct_and_come_back():
    pool = PagePool(8, 4)
    first, second = pool.take(3), pool.take(5)
    assert sorted([*first, *second]) == list(range(8))
    assert pool.free == 0
    pool.give(first)
    pool.give(second)
    assert pool.free == 8


def test_more_than_free_is_refused_whole():
    pool = PagePool(4, 4)
    pool.take(3)
    with pytest.raises(OutOfMemory):
        pool.take(2)
    assert pool.free == 1


@pytest.mark.parametrize("pages", [[0], [2, 2], [-1], [4]])
def test_a_page_given_back_wrongly_is_caught_and_nothing_changes(pages):
    pool = PagePool(4, 4)
    taken = pool.take(3)
    assert 0 in taken
    pool.give(np.array([0], np.int32))
    with pytest.raises(AccountingError):
        pool.give(np.array(pages, np.int32))
    assert pool.free == 2


@pytest.mark.parametrize(("tokens", "pages"), [(0, 0), (1, 1), (4, 1), (5, 2)])
def test_pages_for(tokens, pages):
    assert PagePool(4, 4).pages_for(tokens) == pages


def test_rows_are_taken_once_and_given_back_once():
    rows = RowTable(2, 3)
    first, second = rows.take(), rows.take()
    assert {first, second} == {0, 1}
    with pytest.raises(OutOfMemory):
        rows.take()
    rows.give(first)
    with pytest.raises(AccountingError):
        rows.give(first)
    with pytest.raises(AccountingError):
        rows.give(7)
    assert rows.free == 1


def test_sizes_that_make_no_sense_are_refused():
    for build in (lambda: PagePool(0, 4), lambda: PagePool(4, 0), lambda: RowTable(0, 1), lambda: RowTable(1, 0)):
        with pytest.raises(ValueError, match="needs"):
            build()
