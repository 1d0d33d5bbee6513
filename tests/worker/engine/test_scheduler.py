"""Who runs when: admission by reservation, eviction, chunks, and turns between prefill and decode."""

from __future__ import annotations

import pytest

from berth_api.errors import QueueFull
from workerkit.driver import Driver
from workerkit.fakes import continuation


def test_a_prompt_is_prefilled_in_chunks():
    driver = Driver(chunk=4)
    driver.generate(list(range(3, 13)), new=2)
    driver.settle()
    assert driver.runner.batches == [[(0, 0, 4)], [(0, 4, 8)], [(0, 8, 10)], [(0, 10, 11)]]


def test_the_chunk_is_shared_oldest_first():
    driver = Driver(chunk=4)
    for _ in range(3):
        driver.generate([3, 4, 5], new=1)
    driver.settle()
    assert driver.runner.batches == [[(0, 0, 3), (1, 0, 1)], [(1, 1, 3), (2, 0, 2)], [(2, 2, 3)]]


def test_prefill_and_decode_take_turns():
    driver = Driver(chunk=2)
    driver.generate([3], new=4)
    driver.steps()
    driver.generate([3, 4, 5, 6, 7], new=1)
    driver.settle()
    assert driver.runner.batches == [
        [(0, 0, 1)],
        [(1, 0, 2)],
        [(0, 1, 2)],
        [(1, 2, 4)],
        [(0, 2, 3), (1, 4, 5)],
        [(0, 3, 4)],
    ]


def test_the_batch_is_capped():
    driver = Driver(slots=4, running=2)
    for _ in range(4):
        driver.generate([3, 4], new=3)
    driver.steps()
    assert (driver.core.state().running, driver.core.state().queued) == (2, 2)
    driver.settle()
    assert max(len(batch) for batch in driver.runner.batches) == 2


def test_pages_are_reserved_for_the_whole_answer():
    """8 pages of 4: two requests of 16 tokens fit, a third waits although pages are free now."""
    driver = Driver(pages=8, page_size=4, slots=4, context=32)
    heard = [driver.generate([3, 4], new=14) for _ in range(3)]
    driver.steps()
    assert (driver.core.state().running, driver.core.state().queued) == (2, 1)
    assert driver.core.state().memory.available == 24
    driver.settle()
    assert all(len(each.ids) == 14 for each in heard)


def test_first_come_first_served_even_if_a_later_one_would_fit():
    driver = Driver(pages=8, page_size=4, slots=4, context=32)
    driver.generate([3, 4], new=14)
    driver.generate([3, 4], new=30)
    driver.generate([3, 4], new=2)
    driver.steps()
    assert driver.core.state().queued == 2
    driver.settle()


def test_a_free_row_is_needed_and_idle_slots_give_theirs():
    driver = Driver(slots=2)
    for name in ("a", "b", "c"):
        driver.core.open(name, 1000, None)
    for round_ in range(3):
        for name in ("a", "b", "c"):
            driver.say(name, [10 + round_])
    state = driver.core.state()
    assert (state.resident, state.evictions) == (2, 7)
    assert [len(driver.core.native.ready(name).ids) for name in ("a", "b", "c")] == [15, 15, 15]


def test_the_least_recently_used_session_gives_way():
    driver = Driver(slots=3)
    for name in ("a", "b", "c", "d"):
        driver.core.open(name, 1000, None)
    for name in ("a", "b", "c", "a", "d"):
        driver.say(name, [10])
    assert driver.say("a", [11]).started.cached_tokens == 9
    assert driver.say("b", [11]).started.cached_tokens == 0


def test_pages_are_taken_from_idle_sessions_and_the_answer_is_the_same():
    driver = Driver(pages=8, page_size=4, slots=4, context=32)
    histories = {}
    for name in ("a", "b", "c", "d"):
        driver.core.open(name, 1000, None)
        histories[name] = []
    for round_ in range(3):
        for name, history in histories.items():
            heard = driver.say(name, [20 + round_, 30])
            assert heard.ids == continuation([*history, 20 + round_, 30], 4)
            history += [20 + round_, 30, *heard.ids]
    assert driver.core.state().evictions > 0


def test_nobody_is_evicted_in_vain():
    driver = Driver(pages=8, page_size=4, slots=4, context=32)
    driver.core.open("idle", 1000, None)
    driver.say("idle", [3, 4], new=2)
    driver.generate([3], new=15)
    driver.steps()
    driver.generate([3], new=31)
    driver.steps()
    assert driver.core.state().evictions == 0
    driver.settle()
    assert driver.core.state().evictions == 1


def test_a_queued_sessions_slot_gives_way_after_idle_ones_and_its_turn_is_the_same():
    driver = Driver(pages=8, page_size=4, slots=4, context=32)
    for name in ("idle", "queued"):
        driver.core.open(name, 1000, None)
    driver.say("idle", [3], new=3)
    before = driver.say("queued", [4], new=3)
    driver.generate([5], new=19)
    driver.steps()
    driver.generate([6], new=31)
    waits = driver.generate([7], "queued", new=9)
    driver.steps()
    driver.settle()
    assert waits.ids == continuation([4, *before.ids, 7], 9)
    assert waits.started.cached_tokens == 0


def test_what_waits_beyond_the_limit_is_refused():
    driver = Driver(slots=1, queue=2)
    driver.generate([3])
    driver.steps()
    driver.generate([3])
    driver.generate([3])
    with pytest.raises(QueueFull):
        driver.generate([3])
    driver.settle()
    assert driver.core.state().turns == {"length": 3}


def test_the_largest_request_possible_runs_alone():
    driver = Driver(pages=8, page_size=4, slots=2, context=32)
    heard = [driver.generate([3] * 10, new=1 << 20) for _ in range(3)]
    driver.settle()
    assert [len(each.ids) for each in heard] == [22, 22, 22]


def test_a_sessions_own_kv_does_not_give_way_to_its_own_turn():
    driver = Driver(pages=8, page_size=4, slots=4, context=32)
    for name in ("own", "other"):
        driver.core.open(name, 1000, None)
        driver.say(name, [3], new=3)
    assert driver.say("own", [4], new=27).started.cached_tokens == 3
    assert driver.say("other", [4]).started.cached_tokens == 0
