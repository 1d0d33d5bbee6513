"""The lengths of a holding follow the formulas of streaming sessions."""

from __future__ import annotations

import numpy as np
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


def ids(count: int, first: int = 0) -> np.ndarray:
    """Ids `first …`."""
    return np.arange(first, first + count, dtype=np.int32)


def computed(cache: KVCache, length: int) -> Holding:
    """A holding that has KV of `length` tokens, computed for itself."""
    holding = cache.open()
    cache.grow(holding, length)
    cache.commit(holding, length)
    return holding


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
    cache.publish(holding, ids(10))
    assert (holding.shared, cache.tree.protected, cache.own_pages(holding)) == (8, 2, 1)
    with pytest.raises(AccountingError):
        cache.trim(holding, 4)
    cache.release(holding)
    assert (cache.pool.free, cache.rows.free, cache.tree.evictable) == (30, 4, 2)


def test_a_holding_begins_with_what_the_tree_knows(cache):
    first = computed(cache, 10)
    cache.publish(first, ids(10))
    second = cache.open(cache.tree.match(ids(9)))
    assert (second.shared, second.committed, second.allocated) == (8, 8, 8)
    assert cache.pages(second).tolist() == cache.pages(first).tolist()[:2]
    verify_owners(cache, [first, second])


def test_the_same_prompt_computed_twice_is_kept_once(cache):
    """Both were under way before either could share: the second takes over the first's pages, and frees its own."""
    first, second = computed(cache, 10), computed(cache, 10)
    cache.publish(first, ids(10))
    free = cache.pool.free
    cache.publish(second, ids(10))
    assert cache.pool.free == free + 2
    assert cache.pages(second).tolist()[:2] == cache.pages(first).tolist()[:2]
    verify_owners(cache, [first, second])
    cache.release(first)
    cache.release(second)
    assert (cache.pool.free, cache.tree.evictable) == (30, 2)


def test_publishing_more_later_keeps_one_lock(cache):
    holding = computed(cache, 12)
    cache.publish(holding, ids(5))
    cache.publish(holding, ids(12))
    cache.publish(holding, ids(8))
    assert (holding.shared, cache.tree.protected) == (12, 3)
    verify_owners(cache, [holding])
    cache.release(holding)
    assert cache.tree.evictable == 3


def test_ids_without_kv_are_not_published(cache):
    with pytest.raises(AccountingError, match="13 ids"):
        cache.publish(computed(cache, 12), ids(13))


def test_what_the_tree_keeps_for_nobody_gives_way_to_growth(cache):
    old = computed(cache, 60)
    cache.publish(old, ids(60))
    cache.release(old)
    holding = cache.open()
    cache.grow(holding, 128)
    assert (cache.pool.free, cache.tree.evictable) == (0, 0)
    with pytest.raises(OutOfMemory):
        cache.grow(holding, 129)


def test_forgetting_prefixes_spares_what_is_held(cache):
    held, old = computed(cache, 8), computed(cache, 12)
    cache.publish(held, ids(8))
    cache.publish(old, ids(12, first=100))
    cache.release(old)
    cache.forget_prefixes()
    assert (cache.tree.evictable, cache.tree.protected, cache.pool.free) == (0, 2, 30)


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
