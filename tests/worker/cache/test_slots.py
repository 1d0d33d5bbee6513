"""What a slot keeps, what it gives back and whose turn it is to give way."""

from __future__ import annotations

import numpy as np
import pytest

from berth_worker.cache.kv import KVCache
from berth_worker.cache.pages import PagePool
from berth_worker.cache.rows import RowTable
from berth_worker.cache.sessions import Slots

A, B, C = ("native", "a"), ("native", "b"), ("gateway", "c")


@pytest.fixture
def cache() -> KVCache:
    return KVCache(PagePool(32, 4), RowTable(4, 32))


@pytest.fixture
def slots(cache) -> Slots:
    slots = Slots(cache)
    for key in (A, B, C):
        holding = cache.open()
        cache.grow(holding, 10)
        cache.commit(holding, 9)
        slots.save(key, holding, 10)
    return slots


def test_restore_frees_the_tail_once(cache, slots):
    free = cache.pool.free
    assert slots.restore(A, 5).committed == 5
    assert slots.restore(A, 5).allocated == 5
    assert cache.pool.free == free + 1


def test_restore_never_claims_more_than_is_computed(slots):
    assert slots.restore(A, 100).committed == 9


def test_a_target_below_the_trees_prefix_releases(cache, slots):
    cache.publish(slots.get(A).holding, np.arange(9, dtype=np.int32))
    assert slots.restore(A, 7) is None
    assert slots.get(A) is None
    assert cache.rows.free == 2


def test_a_target_that_shares_nothing_releases_so_that_the_tree_is_asked(slots):
    assert slots.restore(A, 0) is None
    assert slots.releases == {"rolled_back": 1}


def test_restore_of_nothing_is_nothing(slots):
    assert slots.restore(("native", "z"), 4) is None
    assert slots.restore(None, 4) is None


def test_release_wipes_once(cache, slots):
    assert slots.release(A, "closed")
    assert not slots.release(A, "closed")
    assert not slots.release(None, "closed")
    assert slots.releases == {"closed": 1}
    assert (cache.rows.free, cache.pool.free) == (2, 32 - 6)


def test_idle_slots_give_way_least_recently_used_first_then_queued_newest_first(slots):
    def order(lent: set, queued: list) -> list:
        return [slot.key for slot in slots.evictable(lent, queued)]

    assert order(set(), []) == [A, B, C]
    slots.save(A, slots.restore(A, 9), 9)
    assert order(set(), []) == [B, C, A]
    assert order({C}, []) == [B, A]
    assert order(set(), [B, C]) == [A, C, B]
