"""A native session's life, event by event (the table of streaming sessions, section 2)."""

from __future__ import annotations

import pytest

from berth_api.errors import InvalidRequest, NoSuchSession, TooLong
from berth_worker.engine.requests import PromptLogprobs
from workerkit.driver import Driver
from workerkit.fakes import BOS, EOS, continuation


@pytest.fixture
def driver() -> Driver:
    driver = Driver()
    driver.core.open("s", 10_000, None)
    return driver


def test_a_turn_builds_on_history_and_its_kv(driver):
    history: list[int] = []
    for turn in range(4):
        new = [10 + turn, 20 + turn, 30]
        heard = driver.say("s", new)
        assert heard.ids == continuation(history + new, 4)
        assert heard.started.prompt_tokens == len(history) + 3
        # The last token of the turn before was sampled, never computed.
        assert heard.started.cached_tokens == max(0, len(history) - 1)
        history += new + heard.ids
    assert driver.runner.computed == len(history) - 1


def test_an_overlapping_turn_is_refused_and_harms_nobody(driver):
    first = driver.generate([1, 2, 3], "s")
    with pytest.raises(InvalidRequest, match="in flight"):
        driver.generate([9], "s")
    driver.steps()
    with pytest.raises(InvalidRequest, match="in flight"):
        driver.generate([9], "s")
    driver.settle()
    assert first.ids == continuation([1, 2, 3], 4)
    assert driver.say("s", [4]).started.prompt_tokens == 8


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_abort_of_the_first_turn_leaves_no_slot_and_no_history(driver, steps):
    heard = driver.generate([1, 2, 3], "s")
    driver.steps(steps)
    driver.core.abort("r1")
    driver.settle()
    assert heard.aborted.reason == "abort"
    assert len(driver.core.slots) == 0
    assert driver.core.state().memory.available == driver.core.state().memory.total
    assert driver.say("s", [4, 5]).started.prompt_tokens == 2


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_abort_of_a_later_turn_wipes_kv_and_keeps_tokens(driver, steps):
    first = driver.say("s", [1, 2, 3])
    driver.generate([4, 5], "s", rid="x")
    driver.steps(steps)
    driver.core.abort("x")
    driver.settle()
    assert len(driver.core.slots) == 0
    again = driver.say("s", [6])
    assert (again.started.prompt_tokens, again.started.cached_tokens) == (8, 0)
    assert again.ids == continuation([1, 2, 3, *first.ids, 6], 4)


def test_abort_of_a_queued_turn_ends_it_too():
    driver = Driver(slots=1)
    driver.core.open("s", 100, None)
    runs = driver.generate([1, 2], new=6)
    driver.steps()
    waits = driver.generate([3], "s", rid="q")
    driver.core.abort("q")
    driver.deliver()
    assert waits.aborted
    assert not runs.ended
    driver.settle()
    assert driver.say("s", [4]).started.prompt_tokens == 1


def test_abort_all_includes_queued_and_sessionless_requests():
    driver = Driver(slots=1)
    driver.core.open("s", 100, None)
    all_of_them = [driver.generate([1, 2]), driver.generate([3]), driver.generate([3], "s")]
    driver.steps()
    driver.core.abort_all("abort", "told to")
    driver.settle()
    assert all(heard.aborted for heard in all_of_them)


def test_an_unknown_rid_is_no_error(driver):
    driver.core.abort("nobody")
    assert driver.core.idle


def test_close_of_a_running_turn_is_deferred_to_its_end(driver):
    heard = driver.generate([1, 2], "s")
    driver.steps()
    driver.core.close("s")
    driver.core.close("s")
    with pytest.raises(InvalidRequest, match="closing"):
        driver.generate([3], "s")
    driver.settle()
    assert heard.ids == continuation([1, 2], 4)
    assert len(driver.core.slots) == 0
    with pytest.raises(NoSuchSession):
        driver.core.close("s")


def test_an_abort_completes_a_deferred_close(driver):
    driver.say("s", [1])
    driver.generate([5], "s", rid="x")
    driver.steps()
    driver.core.close("s")
    driver.core.abort("x")
    driver.settle()
    assert (len(driver.core.native), len(driver.core.slots)) == (0, 0)


def test_close_of_an_idle_session_frees_everything(driver):
    driver.say("s", [1, 2, 3, 4, 5])
    driver.core.close("s")
    memory = driver.core.state().memory
    assert (memory.available + memory.evictable, memory.rows_free) == (memory.total, memory.rows_total)
    assert memory.session_held == 0


def test_reaping_wipes_kv_and_spares_running_turns():
    driver = Driver()
    driver.core.open("s", 100, 5.0)
    driver.say("s", [1, 2])
    driver.generate([3], "s")
    driver.now = 100.0
    driver.core.reap()
    assert len(driver.core.native) == 1
    driver.settle()
    driver.now = 105.0
    driver.core.reap()
    assert len(driver.core.native) == 1
    driver.now = 105.1
    driver.core.reap()
    assert (len(driver.core.native), len(driver.core.slots)) == (0, 0)


def test_a_refused_turn_does_not_renew_the_idle_clock():
    driver = Driver()
    driver.core.open("s", 100, 5.0)
    driver.now = 4.0
    with pytest.raises(TooLong):
        driver.generate([1] * 101, "s")
    driver.now = 5.1
    driver.core.reap()
    assert len(driver.core.native) == 0


def test_a_leading_bos_is_dropped_from_later_turns_only(driver):
    assert driver.say("s", [BOS, 1]).started.prompt_tokens == 2
    assert driver.say("s", [BOS, 1]).started.prompt_tokens == 7
    with pytest.raises(InvalidRequest, match="empty"):
        driver.generate([BOS], "s")


def test_committed_ids_include_what_ended_the_turn(driver):
    driver.runner.script = {3: ord("x"), 4: EOS}
    heard = driver.say("s", [1, 2, 3], new=9)
    assert (heard.ids, heard.text, heard.finished.finish_reason.matched) == ([ord("x"), EOS], "x", EOS)
    driver.runner.script = {}
    assert driver.say("s", [4]).ids == continuation([1, 2, 3, ord("x"), EOS, 4], 4)


def test_prefill_only_commits_the_input(driver):
    heard = driver.say("s", [1, 2, 3, 4, 5], new=0)
    assert (heard.ids, heard.finished.finish_reason.type, heard.finished.completion_tokens) == ([], "length", 0)
    after = driver.say("s", [6])
    assert (after.started.prompt_tokens, after.started.cached_tokens) == (6, 5)


def test_capacity_bounds_history_input_and_output():
    driver = Driver()
    driver.core.open("s", 10, None)
    assert len(driver.say("s", [1, 2, 3], new=50).ids) == 7
    with pytest.raises(TooLong):
        driver.generate([4], "s")
    driver.core.open("t", 10, None)
    driver.say("t", [1] * 3, new=2)
    with pytest.raises(TooLong):
        driver.generate([4] * 5, "t")
    assert len(driver.say("t", [4] * 4, new=50).ids) == 1


def test_flush_wipes_kv_and_keeps_tokens(driver):
    driver.say("s", [1, 2, 3])
    driver.core.flush()
    memory = driver.core.state().memory
    assert memory.available == memory.total
    after = driver.say("s", [4])
    assert (after.started.prompt_tokens, after.started.cached_tokens) == (8, 0)


def test_input_logprobs_are_clamped_to_what_is_computed_anyway(driver):
    first = driver.say("s", [1, 2, 3])
    heard = driver.say("s", [4, 5], return_logprob=True, logprob_start=2)
    [logprobs] = [event for event in heard.events if isinstance(event, PromptLogprobs)]
    assert heard.started.cached_tokens == 6
    assert logprobs.ids == [first.ids[-1], 4, 5]
    assert logprobs.logprobs == [None, -7.0, -8.0]


def test_input_logprobs_from_the_start_recompute_and_inherit_all_the_same(driver):
    driver.runner.computed = 0
    first = driver.say("s", [1, 2, 3])
    heard = driver.say("s", [4, 5], return_logprob=True, logprob_start=0, top_logprobs=1)
    [logprobs] = [event for event in heard.events if isinstance(event, PromptLogprobs)]
    assert heard.started.cached_tokens == 6
    assert logprobs.ids == [1, 2, 3, *first.ids, 4, 5]
    assert logprobs.logprobs == [None, *[-float(at) for at in range(1, 9)]]
    assert [len(top) for top in logprobs.top] == [0] + [1] * 8
    assert driver.say("s", [6]).started.cached_tokens == 12


@pytest.mark.parametrize("start", [0, 5])
def test_input_logprobs_of_a_shared_prompt_are_all_told(driver, start):
    """What a request finds in the tree is others' KV: it is read again for the logprobs, never written."""
    driver.generate(list(range(3, 20)), new=1)
    driver.settle()
    driver.runner.computed = 0
    heard = driver.generate(list(range(3, 21)), new=1, return_logprob=True, logprob_start=start)
    driver.settle()
    [logprobs] = [event for event in heard.events if isinstance(event, PromptLogprobs)]
    assert heard.started.cached_tokens == 16
    assert logprobs.logprobs == [None, *[-float(at) for at in range(start + 1, 18)]]
    assert driver.runner.computed == 18 - start


def test_input_logprobs_survive_a_retraction_before_they_are_told():
    driver = Driver(pages=8, page_size=4, context=32, chunk=4, headroom=0)
    driver.generate([9, 9, 9], new=29)
    driver.steps(9)  # 12 tokens in 3 pages; its next page is what the other's last chunk will lack
    heard = driver.generate(list(range(3, 23)), new=3, return_logprob=True, logprob_start=0)
    driver.settle()
    assert driver.core.state().retracts > 0
    [logprobs] = [event for event in heard.events if isinstance(event, PromptLogprobs)]
    assert logprobs.logprobs == [None, *[-float(at) for at in range(1, 20)]]


def test_input_logprobs_of_a_long_prompt_span_its_chunks():
    driver = Driver(chunk=5)
    heard = driver.generate(list(range(3, 20)), return_logprob=True, logprob_start=3)
    driver.settle()
    [logprobs] = [event for event in heard.events if isinstance(event, PromptLogprobs)]
    assert logprobs.ids == list(range(6, 20))
    assert logprobs.logprobs == [None, *[-float(at) for at in range(4, 17)]]
