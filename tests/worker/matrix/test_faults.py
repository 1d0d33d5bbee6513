"""Faults that no request provokes for certain: by over-allocation, which needs speculation, or at an exact step."""

from __future__ import annotations

import pytest

from berth_worker.cache.integrity import snapshot, verify
from berth_worker.cache.kv import Holding, KVCache
from berth_worker.cache.pages import PagePool
from berth_worker.cache.rows import RowTable
from berth_worker.cache.sessions import Slots
from workerkit.driver import Driver
from workerkit.fakes import continuation

KEY = ("native", "s")


@pytest.fixture(params=[1, 16, 256])
def cache(request: pytest.FixtureRequest) -> KVCache:
    return KVCache(PagePool(1024 // request.param, request.param), RowTable(2, 1024))


def drafted(cache: KVCache, committed: int, allocated: int) -> Holding:
    """KV as speculation leaves it: more allocated than computed, more computed than accepted."""
    holding = cache.open()
    cache.grow(holding, allocated)
    cache.commit(holding, committed)
    return holding


def test_over_allocation_is_not_kept_at_finish(cache):
    """A prompt of 26 and 12 accepted tokens: C = 40 and A = 44 both become 38, and the pages behind are free."""
    slots, free = Slots(cache), cache.pool.free
    slots.save(KEY, drafted(cache, 40, 44), 38)
    holding = slots.get(KEY).holding
    assert (holding.committed, holding.allocated) == (38, 38)
    assert cache.pool.free == free - cache.pool.pages_for(38)


def test_over_allocation_is_freed_on_restore(cache):
    """From wherever it comes: a slot that was saved with a tail gives it back before the next turn allocates."""
    slots, free = Slots(cache), cache.pool.free
    slots.save(KEY, drafted(cache, 700, 900), 900)
    restored = slots.restore(KEY, 800)
    assert (restored.committed, restored.allocated) == (700, 700)
    assert cache.pool.free == free - cache.pool.pages_for(700)
    verify(snapshot(cache, slots, []))


def test_a_restore_is_not_a_loan(cache):
    """Admission may try again and fail: what is lent is what runs, not what was ever restored."""
    slots = Slots(cache)
    slots.save(KEY, drafted(cache, 40, 40), 40)
    holding = slots.restore(KEY, 40)
    idle, busy = snapshot(cache, slots, []), snapshot(cache, slots, [holding])
    assert idle.session_held == busy.uncached == cache.pool.pages_for(40) * cache.pool.page_size
    assert idle.uncached == busy.session_held == 0
    verify(idle)
    verify(busy)


def test_a_retraction_frees_what_others_need():
    """Handed to its slot, the KV of the newest would be as much in the way as before."""
    driver = Driver(pages=8, page_size=4, slots=2, headroom=0)
    prompts = {"a": [3] * 6, "b": [4] * 6}
    for name in prompts:
        driver.core.open(name, 1000, None)
    heard = {name: driver.generate(prompt, name, new=20) for name, prompt in prompts.items()}
    driver.settle()
    assert driver.core.scheduler.retracts
    assert {name: each.ids for name, each in heard.items()} == {
        name: continuation(prompt, 20) for name, prompt in prompts.items()
    }
