"""Who runs when: admission, eviction, retraction, chunks, and prefill beside decode."""

from __future__ import annotations

import pytest

from berth_api.errors import InvalidRequest, QueueFull
from berth_api.wire import Started
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


def test_a_sequence_is_admitted_with_room_for_a_little_more_than_it_knows():
    """8 pages of 4: three of 6 tokens and a little would fit, three of 16 would not."""
    driver = Driver(pages=8, page_size=4, slots=4, context=32, headroom=6)
    heard = [driver.generate([3, 4, each], new=13) for each in range(5, 8)]
    driver.steps()
    assert (driver.core.state().running, driver.core.state().queued) == (2, 1)
    driver.settle()
    assert [each.ids for each in heard] == [continuation([3, 4, each], 13) for each in range(5, 8)]


def test_when_pages_run_out_the_newest_waits_again_and_nobody_notices():
    driver = Driver(pages=8, page_size=4, slots=4, context=32)
    heard = [driver.generate([each, 4], new=20) for each in range(5, 8)]
    driver.steps()
    assert driver.core.state().running == 3
    driver.settle()
    assert driver.core.state().retracts > 0
    assert [each.ids for each in heard] == [continuation([each, 4], 20) for each in range(5, 8)]
    assert [len([event for event in each.events if isinstance(event, Started)]) for each in heard] == [1, 1, 1]


def test_the_oldest_is_never_retracted():
    driver = Driver(pages=8, page_size=4, slots=4, context=32)
    oldest = driver.generate([3], new=31)
    for each in range(5, 10):
        driver.generate([each, 4], new=20)
    steps = 0
    while not oldest.ended:
        driver.steps()
        steps += 1
    assert steps < 31 + 20  # the other prompts' prefills stand between its decodes, nothing else does
    driver.settle()


def test_who_was_retracted_comes_back_only_for_good():
    driver = Driver(pages=8, page_size=4, slots=4, context=32)
    driver.generate([5, 4], new=28)
    driver.generate([6, 4], new=28)
    driver.settle()
    assert driver.core.state().retracts == 1


def test_retraction_on_schedule_takes_the_newest_that_got_somewhere():
    driver = Driver(chunk=2, retract_every=3)
    heard = [driver.generate(list(range(3, 3 + count)), new=9) for count in (9, 2, 12)]
    driver.settle()
    assert driver.core.state().retracts > 3
    assert [each.ids for each in heard] == [continuation(list(range(3, 3 + count)), 9) for count in (9, 2, 12)]


@pytest.mark.parametrize("every", [1, 2])
def test_retraction_at_every_turn_still_gets_there(every):
    driver = Driver(chunk=2, retract_every=every)
    heard = driver.generate(list(range(3, 16)), new=5)
    driver.settle()
    assert heard.ids == continuation(list(range(3, 16)), 5)


def test_a_retracted_turn_wipes_its_slot_and_keeps_its_session_in_flight():
    driver = Driver(retract_every=2)
    driver.core.open("s", 1000, None)
    first = driver.say("s", [3, 4, 5])
    second = driver.generate([6], "s", new=6)
    while not driver.core.state().releases.get("retracted"):
        driver.steps()
    with pytest.raises(InvalidRequest, match="in flight"):
        driver.generate([6], "s")
    driver.settle()
    assert second.ids == continuation([3, 4, 5, *first.ids, 6], 6)
    assert second.started.cached_tokens == 6


def test_mixed_passes_decode_everybody_and_prefill_with_the_rest():
    driver = Driver(chunk=4, mixed=True)
    driver.generate([3], new=4)
    driver.steps()
    driver.generate([4, 5, 6, 7, 8, 9, 10], new=1)
    driver.settle()
    assert driver.runner.batches == [
        [(0, 0, 1)],
        [(0, 1, 2), (1, 0, 3)],
        [(0, 2, 3), (1, 3, 6)],
        [(0, 3, 4), (1, 6, 7)],
    ]


def test_a_full_batch_of_decodes_leaves_a_mixed_prefill_a_token_a_pass():
    driver = Driver(chunk=2, mixed=True)
    for _ in range(3):
        driver.generate([3], new=30)
    driver.steps(2)
    heard = driver.generate([4, 5, 6], new=1)
    driver.settle()
    assert heard.ids == continuation([4, 5, 6], 1)


def test_first_come_first_served_even_if_a_later_one_would_fit():
    driver = Driver(pages=8, page_size=4, slots=4, context=32, headroom=32)
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
    assert (state.resident, state.releases.get("evicted", 0)) == (2, 7)
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
    assert driver.core.state().releases.get("evicted", 0) > 0


def test_nobody_is_evicted_in_vain():
    driver = Driver(pages=8, page_size=4, slots=4, context=32)
    driver.core.open("idle", 1000, None)
    driver.say("idle", [3, 4], new=2)
    driver.generate([3], new=15)
    driver.steps()
    driver.generate([3], new=31)
    driver.steps()
    assert driver.core.state().releases.get("evicted", 0) == 0
    driver.settle()
    assert driver.core.state().releases.get("evicted", 0) == 1


def test_a_queued_sessions_slot_gives_way_after_idle_ones_and_its_turn_is_the_same():
    driver = Driver(pages=8, page_size=4, slots=4, context=32, headroom=32)
    for name in ("idle", "queued"):
        driver.core.open(name, 1000, None)
    driver.say("idle", [3], new=3)
    before = driver.say("queued", [4], new=3)
    driver.generate([5], new=19)  # with both slots, all 8 pages
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


def test_what_has_waited_too_long_is_aborted_and_its_session_takes_turns_again():
    driver = Driver(slots=1, queue_s=5.0)
    driver.core.open("s", 1000, None)
    running = driver.generate([3], new=40)
    driver.steps()
    waiting = driver.generate([4], "s")
    driver.now = 5.0
    assert not driver.core.reap()
    driver.now = 5.1
    assert driver.core.reap()
    driver.deliver()
    assert waiting.aborted.reason == "queue_timeout"
    again = driver.generate([4], "s")
    driver.settle()
    assert (len(running.ids), again.ids) == (40, continuation([4], 4))


def test_a_retracted_request_does_not_time_out():
    driver = Driver(retract_every=2, queue_s=5.0)
    heard = driver.generate([3, 4], new=6)
    while not driver.core.state().retracts:
        driver.steps()
    driver.now = 60.0
    assert not driver.core.reap()
    driver.settle()
    assert heard.ids == continuation([3, 4], 6)
