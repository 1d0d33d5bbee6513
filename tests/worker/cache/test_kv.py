"""The lengths of a holding follow the formulas of streaming sessions."""

from __future__ import annotations

import pytest

from berth_worker.cache.errors import AccountingError, OutOfMemory
from berth_worker.cache.integrity import snapshot, verify, verify_owners
from berth_worker.cache.kv import Holding, KVCache
from berth_worker.cache.pages import PagePool
from berth_worker.cache.rows import RowTable
from berth_worker.cache.sessions import Slots


@pytest.fixture
def cache() -> KVCache:
    return KVCache(PagePool(32, 4), RowTable(4, 32))


def test_grow_allocates_whole_pages_and_never_shrinks(cache):
    holding = cache.open()
    cache.grow(holding, 5)
    assert (holding.allocated, len(cache.pages(holding))) == (5, 2)
    before = cache.pages(holding).tolist()
    cache.grow(holding, 8)
    assert cache.pages(holding).tolist() == before
    cache.grow(holding, 3)
    assert holding.allocated == 8
    cache.grow(holding, 9)
    assert cache.pages(holding).tolist()[:2] == before
    assert cache.pool.free == 29


def test_a_finished_turn_keeps_exactly_its_tokens(cache):
    """The example of section 3: prompt 26, output 12, C=40, A=44 -> all 38."""
    holding = cache.open()
    cache.grow(holding, 44)
    cache.commit(holding, 40)
    cache.trim(holding, 38)
    assert (holding.committed, holding.allocated) == (38, 38)
    assert cache.pool.free == 32 - 10


def test_trim_keeps_the_partial_page(cache):
    holding = cache.open()
    cache.grow(holding, 12)
    pages = cache.pages(holding).tolist()
    cache.trim(holding, 5)
    assert cache.pages(holding).tolist() == pages[:2]
    cache.grow(holding, 8)
    assert cache.pages(holding).tolist() == pages[:2]


def test_growth_beyond_the_pool_changes_nothing(cache):
    holding = cache.open()
    cache.grow(holding, 100)
    with pytest.raises(OutOfMemory):
        cache.grow(holding, 129)
    assert (holding.allocated, cache.pool.free) == (100, 7)


def test_what_the_tree_owns_is_neither_trimmed_nor_freed(cache):
    holding = cache.open()
    cache.grow(holding, 12)
    cache.commit(holding, 12)
    holding.shared = 8
    with pytest.raises(AccountingError):
        cache.trim(holding, 4)
    assert cache.own_pages(holding) == 1
    cache.release(holding)
    assert (cache.pool.free, cache.rows.free) == (30, 4)


def test_kv_outside_its_pages_is_caught(cache):
    holding = cache.open()
    cache.grow(holding, 4)
    with pytest.raises(AccountingError):
        cache.commit(holding, 5)


def test_the_identity_counts_everything_once(cache):
    slots = Slots(cache)
    idle, lent, fresh = cache.open(), cache.open(), cache.open()
    for holding, length in ((idle, 5), (lent, 9), (fresh, 3)):
        cache.grow(holding, length)
    slots.save(("native", "idle"), idle, 5)
    slots.save(("native", "lent"), lent, 9)
    memory = snapshot(cache, slots, [lent, fresh])
    assert (memory.session_held, memory.uncached, memory.available) == (8, 16, 104)
    assert (memory.rows_free, memory.rows_held) == (1, 3)
    verify(memory)


def test_lost_pages_and_lost_rows_are_noticed(cache):
    slots = Slots(cache)
    cache.pool.take(1)
    with pytest.raises(AccountingError, match="124 of 128"):
        verify(snapshot(cache, slots, []))
    other = KVCache(PagePool(4, 4), RowTable(2, 4))
    other.rows.take()
    with pytest.raises(AccountingError, match="1 of 2 rows"):
        verify(snapshot(other, Slots(other), []))


def test_two_owners_of_a_page_are_noticed(cache):
    first = cache.open()
    cache.grow(first, 8)
    second = Holding(cache.rows.take(), allocated=4)
    cache.rows.pages(second.row)[0] = cache.pages(first)[1]
    with pytest.raises(AccountingError, match="two owners"):
        verify_owners(cache, [first, second])
    with pytest.raises(AccountingError, match="out of order"):
        verify_owners(cache, [Holding(cache.rows.take(), committed=1)])
