"""What gives way for pages and rows, in which order, and that nobody does in vain."""

from __future__ import annotations

import numpy as np
import pytest

from berth_worker.cache.kv import KVCache
from berth_worker.cache.pages import PagePool
from berth_worker.cache.room import Room
from berth_worker.cache.rows import RowTable
from berth_worker.cache.sessions import Slots

A, B = ("native", "a"), ("native", "b")


@pytest.fixture
def cache() -> KVCache:
    return KVCache(PagePool(16, 4), RowTable(3, 16))


@pytest.fixture
def slots(cache) -> Slots:
    """Two slots of 5 pages, of which the tree owns the first 3: the same ones for both."""
    slots = Slots(cache)
    for key in (A, B):
        holding = cache.open()
        cache.grow(holding, 20)
        cache.commit(holding, 20)
        cache.publish(holding, np.arange(12, dtype=np.int32))
        slots.save(key, holding, 20)
    return slots


def test_what_only_the_slots_lock_keeps_counts_as_possible(cache, slots):
    room, everybody = Room(cache, slots), list(slots)
    assert cache.pool.free == 9
    assert room.possible(16, 0, everybody)
    assert not room.possible(17, 0, everybody)
    assert not room.possible(14, 0, everybody[:1])  # the other still reads the shared prefix
    assert room.possible(11, 0, everybody[:1])


def test_slots_give_way_in_order_and_no_more_than_needed(cache, slots):
    room = Room(cache, slots)
    assert room.make(9, 1, list(slots))
    assert len(slots) == 2
    assert room.make(11, 1, list(slots))
    assert [slot.key for slot in slots] == [B]
    assert room.make(16, 3, list(slots))
    assert (len(slots), cache.spare) == (0, 16)
    assert not room.make(17, 0, list(slots))


def test_rows_are_made_too(cache, slots):
    room = Room(cache, slots)
    assert not room.there(1, 2)
    assert room.possible(1, 3, list(slots))
    assert not room.possible(1, 4, list(slots))
    assert room.make(1, 2, list(slots))
    assert slots.releases == {"evicted": 1}
