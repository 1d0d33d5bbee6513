"""Steps: what comes of one, what a failed one costs, and that the books are checked."""

from __future__ import annotations

import pytest

from berth_api.errors import Conflict, InvalidRequest, TooLong
from berth_api.wire import Started, Tokens
from berth_worker.cache.errors import AccountingError
from workerkit.driver import Driver
from workerkit.fakes import VOCAB, continuation


def test_events_come_in_order_and_the_last_one_is_terminal():
    driver = Driver()
    heard = driver.generate([3, 4], new=3)
    driver.settle()
    assert [type(event).__name__ for event in heard.events] == ["Started", "Tokens", "Tokens", "Tokens", "Finished"]


def test_started_is_said_at_admission_not_at_acceptance():
    driver = Driver(slots=1)
    driver.generate([3, 4])
    waits = driver.generate([3, 4])
    driver.steps()
    assert waits.events == []
    driver.settle()
    assert isinstance(waits.events[0], Started)


def test_requests_in_one_batch_do_not_see_each_other():
    driver = Driver(slots=4, chunk=7)
    prompts = [[3], [4] * 9, [5, 6], [7] * 30]
    heard = [driver.generate(prompt, new=6) for prompt in prompts]
    driver.settle()
    assert [each.ids for each in heard] == [continuation(prompt, 6) for prompt in prompts]


def test_what_sessionless_requests_leave_behind_is_anybodys():
    driver = Driver()
    driver.generate([3] * 20)
    driver.settle()
    memory = driver.core.state().memory
    assert (memory.available + memory.evictable, memory.rows_free) == (memory.total, memory.rows_total)
    assert memory.evictable == 20
    assert driver.runner.forgotten == {0}


@pytest.mark.parametrize(
    ("ids", "options", "kind", "field"),
    [
        ([], {}, InvalidRequest, "input_ids"),
        ([VOCAB], {}, InvalidRequest, "input_ids"),
        ([3, -4], {}, InvalidRequest, "input_ids"),
        ([3] * 201, {}, TooLong, "input_ids"),
        ([3] * 200, {}, TooLong, "input_ids"),
        ([3], {"sampling": {"stop_token_ids": [VOCAB]}}, InvalidRequest, "stop_token_ids"),
        ([3], {"logprob_start": 1}, InvalidRequest, "logprob_start_len"),
        ([3], {"session": "nobody"}, InvalidRequest, "session_params.id"),
        ([3], {"rid": "taken"}, InvalidRequest, "rid"),
    ],
)
def test_a_refusal_names_the_field_and_leaves_no_trace(ids, options, kind, field):
    driver = Driver()
    driver.generate([3], rid="taken")
    before = driver.core.state()
    with pytest.raises(kind) as refused:
        driver.generate(ids, **options)
    assert refused.value.members["field"] == field
    assert driver.core.state() == before


def test_an_input_as_long_as_the_context_may_be_prefilled_only():
    driver = Driver()
    heard = driver.generate([3] * 200, new=0)
    driver.settle()
    assert heard.finished.finish_reason.type == "length"


def test_a_failed_step_fails_its_requests_and_no_others():
    driver = Driver(slots=3)
    driver.core.open("s", 100, None)
    first = driver.say("s", [3])
    hit = driver.generate([4], "s")
    driver.runner.fail = RuntimeError("no such kernel")
    driver.steps()
    assert hit.aborted.reason == "internal_error"
    assert "no such kernel" in hit.aborted.message
    assert driver.core.state().failed_steps == 1
    driver.runner.fail = None
    again = driver.say("s", [4])
    assert again.ids == continuation([3, *first.ids, 4], 4)
    assert driver.core.state().failed_steps == 0


def test_a_leak_is_found_at_the_step_that_made_it():
    driver = Driver(check="busy")
    driver.generate([3])
    driver.core.cache.pool.take(1)
    with pytest.raises(AccountingError):
        driver.core.step()


def test_the_idle_check_waits_for_the_last_request():
    driver = Driver(check="idle")
    driver.generate([3], new=2)
    driver.core.cache.pool.take(1)
    driver.core.step()
    with pytest.raises(AccountingError):
        driver.core.step()


def test_flush_is_refused_while_something_runs():
    driver = Driver()
    driver.generate([3])
    with pytest.raises(Conflict):
        driver.core.flush()
    driver.settle()
    driver.core.flush()


def test_the_books_balance_in_every_snapshot():
    driver = Driver(slots=3, chunk=5)
    for name in "abcdef":
        driver.core.open(name, 150, None)
    for turn in range(4):
        for name in "abcdef":
            driver.generate([3 + turn] * 7, name, new=5)
            driver.generate([9] * 11, new=3)
        while not driver.core.idle:
            driver.steps()
            memory = driver.core.state().memory
            parts = (memory.available, memory.evictable, memory.protected, memory.session_held, memory.uncached)
            assert min(parts) >= 0
            assert sum(parts) == memory.total
        assert driver.core.state().memory.uncached == 0


def test_one_tokens_event_carries_one_steps_tokens():
    driver = Driver()
    heard = driver.generate([3], new=3)
    driver.settle()
    assert [len(event.ids) for event in heard.events if isinstance(event, Tokens)] == [1, 1, 1]
