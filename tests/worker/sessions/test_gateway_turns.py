"""A gateway's turns: pending until the next parent tells, fenced, moved, resumed, and never half done."""

from __future__ import annotations

import pytest

from berth_api.errors import Conflict, Draining, Duplicate, HistoryRequired, InvalidRequest, QueueFull, Stale, TooLong
from berth_api.wire import ReleaseRequest, StopRequest, Tokens
from workerkit.driver import Driver, head_of, pack
from workerkit.fakes import EOS, VOCAB, continuation


@pytest.fixture
def driver() -> Driver:
    return Driver()


def test_a_finished_turn_is_pending_under_its_own_head(driver):
    heard = driver.take_turn("u", [1, 2, 3])
    assert heard.ids == continuation([1, 2, 3], 4)
    assert heard.finished.head == head_of([1, 2, 3, *heard.ids])


def test_the_pending_head_as_parent_means_committed(driver):
    first = driver.take_turn("u", [1, 2, 3])
    second = driver.take_turn("u", [4], first.finished.head, epoch=2)
    assert second.started.prompt_tokens == 8
    assert second.started.cached_tokens == 6
    assert second.ids == continuation([1, 2, 3, *first.ids, 4], 4)
    assert second.finished.head == head_of([1, 2, 3, *first.ids], [4, *second.ids])


def test_the_old_head_as_parent_means_rolled_back(driver):
    first = driver.take_turn("u", [1, 2, 3])
    driver.take_turn("u", [4, 5, 6, 7], first.finished.head, epoch=2, new=9)
    held = driver.core.state().memory.session_held
    again = driver.take_turn("u", [8], first.finished.head, epoch=3)
    assert again.started.cached_tokens == 7
    assert again.ids == continuation([1, 2, 3, *first.ids, 8], 4)
    assert driver.core.state().memory.session_held < held


def test_a_first_turn_that_was_not_committed_is_rolled_back_to_nothing(driver):
    driver.take_turn("u", [1, 2, 3])
    again = driver.take_turn("u", [1, 2, 3], epoch=2)
    assert (again.started.prompt_tokens, again.started.cached_tokens) == (3, 0)


def test_any_other_parent_needs_history_and_changes_nothing(driver):
    first = driver.take_turn("u", [1, 2, 3])
    with pytest.raises(HistoryRequired) as refused:
        driver.turn("u", [4], "beef", epoch=2)
    assert refused.value.members["have"] == [first.finished.head]
    assert driver.take_turn("u", [4], first.finished.head, epoch=2).started.cached_tokens == 6


def test_history_rebuilds_a_session_on_a_worker_that_never_saw_it(driver):
    turns = [[1, 2, 3], [4, 5]]
    heard = driver.take_turn("u", [6], head_of(*turns), history=[pack(turn) for turn in turns])
    assert heard.ids == continuation([1, 2, 3, 4, 5, 6], 4)
    assert heard.finished.head == head_of(*turns, [6, *heard.ids])
    after = driver.take_turn("u", [7], heard.finished.head, epoch=2)
    assert after.started.cached_tokens == 9


def test_a_worker_that_lags_behind_takes_the_missing_turns(driver):
    first = driver.take_turn("u", [1, 2, 3])
    turns = [[1, 2, 3, *first.ids], [40, 41], [42]]
    heard = driver.take_turn(
        "u", [6], head_of(*turns), epoch=9, history=[pack(turn) for turn in turns[1:]], history_base=head_of(turns[0])
    )
    assert heard.started.cached_tokens == 6
    assert heard.ids == continuation([*turns[0], 40, 41, 42, 6], 4)


def test_lower_pairs_are_stale_equal_ones_duplicates(driver):
    driver.take_turn("u", [1], epoch=5, attempt=2)
    with pytest.raises(Stale) as stale:
        driver.turn("u", [1], epoch=4, attempt=9)
    with pytest.raises(Duplicate):
        driver.turn("u", [1], epoch=5, attempt=2)
    assert stale.value.members["seen"] == [5, 2]


def test_the_fence_outlives_the_slot(driver):
    driver.take_turn("u", [1], epoch=5)
    driver.core.flush()
    with pytest.raises(Stale):
        driver.turn("u", [1], epoch=4)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_higher_pair_supersedes_the_running_attempt(driver, steps):
    first = driver.take_turn("u", [1, 2, 3])
    older = driver.turn("u", [4], first.finished.head, epoch=2, new=20)
    driver.steps(steps)
    newer = driver.turn("u", [5], first.finished.head, epoch=2, attempt=2)
    driver.settle()
    assert older.aborted.reason == "superseded"
    assert newer.ids == continuation([1, 2, 3, *first.ids, 5], 4)
    assert newer.finished.head == head_of([1, 2, 3, *first.ids], [5, *newer.ids])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Conflict, {"fingerprint": "another"}),
        (InvalidRequest, {"ids": []}),
        (InvalidRequest, {"ids": [VOCAB]}),
        (InvalidRequest, {"ids": [-1]}),
        (InvalidRequest, {"resume_ids": pack([VOCAB])}),
        (InvalidRequest, {"resume_ids": b"abc"}),
        (InvalidRequest, {"resume_ids": pack([5] * 5)}),
        (InvalidRequest, {"history": [pack([VOCAB])], "parent": head_of([VOCAB])}),
        (InvalidRequest, {"sampling": {"stop_token_ids": [VOCAB]}}),
        (InvalidRequest, {"sampling": {"min_new_tokens": 5}}),
        (TooLong, {"max_tokens": 1}),
        (TooLong, {"ids": [1] * 200}),
        (HistoryRequired, {"parent": "beef"}),
    ],
)
def test_a_refused_request_changes_nothing(driver, kind, options):
    first = driver.take_turn("u", [1, 2, 3])
    running = driver.turn("u", [4], first.finished.head, epoch=2)
    driver.steps()
    before = driver.core.state()
    with pytest.raises(kind):
        driver.turn("u", **({"ids": [1], "parent": first.finished.head, "epoch": 3} | options))
    assert driver.core.state() == before
    driver.settle()
    assert running.ids == continuation([1, 2, 3, *first.ids, 4], 4)
    assert driver.take_turn("u", [5], running.finished.head, epoch=3).started.cached_tokens == 11


def test_resumed_ids_count_as_output_and_are_not_sent_again(driver):
    whole = driver.take_turn("u", [1, 2, 3], new=9)
    for sent in range(1, 9):
        moved = Driver().take_turn("u", [1, 2, 3], new=9, attempt=2, resume_ids=pack(whole.ids[:sent]))
        assert moved.ids == whole.ids[sent:]
        assert moved.finished.completion_tokens == 9
        assert moved.finished.head == whole.finished.head
        assert moved.started.prompt_tokens == 3


def test_text_held_back_by_the_old_worker_comes_with_the_first_event_of_the_new():
    script = {3: ord("a"), 4: ord("S"), 5: ord("T"), 6: ord("x"), 7: 299, 8: ord("b"), 9: EOS}
    sampling = {"stop": ["STOP"]}
    old = Driver()
    old.runner.script = script
    whole = old.take_turn("u", [1, 2, 3], new=20, sampling=sampling)
    pieces = [event.text for event in whole.events if isinstance(event, Tokens)]
    assert pieces == ["a", "", "", "STx", "", "~b", ""]
    for sent in range(1, 7):
        new = Driver()
        new.runner.script = script
        moved = new.take_turn("u", [1, 2, 3], new=20, sampling=sampling, resume_ids=pack(whole.ids[:sent]))
        assert "".join(pieces[:sent]) + moved.text == whole.text


@pytest.mark.parametrize(
    ("resumed", "sampling", "reason"),
    [
        ([ord("x"), EOS], {}, ("stop", EOS)),
        ([ord("x")] * 4, {}, ("length", None)),
        ([ord("x"), ord("N"), ord("O")], {"stop": "NO"}, ("stop", "NO")),
        ([ord("x"), 7], {"stop_token_ids": [7]}, ("stop", 7)),
    ],
)
def test_a_turn_whose_resumed_ids_end_it_finishes_before_any_decode(driver, resumed, sampling, reason):
    heard = driver.turn("u", [1, 2, 3], resume_ids=pack(resumed), sampling=sampling)
    driver.deliver()
    assert driver.runner.batches == []
    assert (heard.finished.finish_reason.type, heard.finished.finish_reason.matched) == reason
    assert heard.finished.head == head_of([1, 2, 3, *resumed])
    assert heard.finished.completion_tokens == len(resumed)
    assert heard.started.prompt_tokens == 3
    assert heard.ids == []


def test_a_turn_that_ends_at_once_keeps_the_slots_kv(driver):
    first = driver.take_turn("u", [1, 2, 3])
    ended = driver.take_turn("u", [4], first.finished.head, epoch=2, resume_ids=pack([EOS]))
    assert ended.started.cached_tokens == 6
    after = driver.take_turn("u", [5], ended.finished.head, epoch=3)
    assert after.started.cached_tokens == 6
    assert after.ids == continuation([1, 2, 3, *first.ids, 4, EOS, 5], 4)


def test_a_rolled_back_tail_is_gone_even_when_the_next_turn_ends_at_once(driver):
    first = driver.take_turn("u", [1, 2, 3])
    driver.take_turn("u", [40, 41, 42], first.finished.head, epoch=2)
    ended = driver.take_turn("u", [4, 4, 4], first.finished.head, epoch=3, resume_ids=pack([EOS]))
    after = driver.take_turn("u", [5], ended.finished.head, epoch=4)
    assert after.ids == continuation([1, 2, 3, *first.ids, 4, 4, 4, EOS, 5], 4)


def test_stop_finishes_the_turn_with_what_was_said(driver):
    heard = driver.turn("u", [1, 2, 3], new=50)
    driver.steps(3)
    assert driver.core.stop(StopRequest("u", "t1", 1, 1))
    driver.settle()
    assert heard.ids == continuation([1, 2, 3], 3)
    assert (heard.finished.finish_reason.type, heard.finished.finish_reason.matched) == ("stop", None)
    assert heard.finished.head == head_of([1, 2, 3, *heard.ids])
    after = driver.take_turn("u", [4], heard.finished.head, epoch=2)
    assert after.ids == continuation([1, 2, 3, *heard.ids, 4], 4)


def test_stop_in_the_middle_of_prefill_commits_the_input():
    driver = Driver(chunk=4)
    heard = driver.turn("u", list(range(3, 13)), new=5)
    driver.steps(1)
    assert driver.core.stop(StopRequest("u", "t1", 1, 1))
    driver.settle()
    assert (heard.ids, heard.finished.head) == ([], head_of(list(range(3, 13))))
    after = driver.take_turn("u", [4], heard.finished.head, epoch=2)
    assert after.started.cached_tokens == 4
    assert after.ids == continuation([*range(3, 13), 4], 4)


def test_stop_of_another_attempt_finds_nothing(driver):
    driver.turn("u", [1, 2, 3], epoch=5)
    for order in (("v", "t5", 5, 1), ("u", "t4", 5, 1), ("u", "t5", 4, 1), ("u", "t5", 5, 2)):
        assert not driver.core.stop(StopRequest(*order))
    driver.settle()
    assert not driver.core.stop(StopRequest("u", "t5", 5, 1))


def test_release_wipes_kv_and_a_late_order_hits_nothing(driver):
    first = driver.take_turn("u", [1, 2, 3], epoch=5)
    assert not driver.core.release(ReleaseRequest("u", 4))
    driver.turn("u", [4], first.finished.head, epoch=6)
    assert not driver.core.release(ReleaseRequest("u", 6))
    driver.settle()
    assert driver.core.release(ReleaseRequest("u", 6))
    assert len(driver.core.slots) == 0
    assert driver.core.release(ReleaseRequest("unknown", 1))


def test_an_abort_wipes_kv_and_the_gateway_sends_history_again(driver):
    first = driver.take_turn("u", [1, 2, 3])
    heard = driver.turn("u", [4], first.finished.head, epoch=2)
    driver.steps(2)
    driver.core.cancel(heard, "disconnected", "gone")
    driver.settle()
    assert heard.aborted.reason == "disconnected"
    with pytest.raises(HistoryRequired):
        driver.turn("u", [4], first.finished.head, epoch=3)
    turn = [1, 2, 3, *first.ids]
    again = driver.take_turn("u", [4], head_of(turn), epoch=3, history=[pack(turn)])
    assert again.ids == continuation([*turn, 4], 4)


def test_max_tokens_caps_the_session(driver):
    heard = driver.take_turn("u", [1, 2, 3], new=50, max_tokens=9)
    assert (len(heard.ids), heard.finished.finish_reason.type) == (6, "length")


def test_the_turns_seed_decides_and_the_samplings_own_goes_before_it(driver):
    plain = driver.take_turn("a", [1, 2, 3], seed=11)
    own = driver.take_turn("b", [1, 2, 3], seed=7, sampling={"seed": 11})
    other = driver.take_turn("c", [1, 2, 3], seed=12)
    assert plain.ids == own.ids == continuation([1, 2, 3], 4, seed=11)
    assert other.ids != plain.ids


def test_a_full_queue_and_a_draining_worker_refuse(driver):
    small = Driver(slots=1, queue=1)
    small.turn("a", [1])
    with pytest.raises(QueueFull):
        small.turn("b", [1])
    driver.core.drain()
    for attempt in (
        lambda: driver.turn("b", [1]),
        lambda: driver.generate([1]),
        lambda: driver.core.open("s", 9, None),
    ):
        with pytest.raises(Draining):
            attempt()


def test_output_logprobs_go_with_their_tokens(driver):
    heard = driver.take_turn("u", [1, 2, 3], logprobs=True, top_logprobs=2)
    for event in heard.events:
        if isinstance(event, Tokens):
            [entry] = event.logprobs
            assert (entry.id, len(entry.top)) == (event.ids[0], 2)
            assert entry.logprob == pytest.approx(-1 / (1 + entry.id))


def test_a_fork_shares_the_whole_pages_of_what_it_came_from(driver):
    """12 tokens in pages of 4, of which the last has no KV yet: two pages are shared, the third is computed again."""
    first = driver.take_turn("u", [1, 2, 3, 4, 5], new=7)
    said = [1, 2, 3, 4, 5, *first.ids]
    held = driver.core.state().memory.available
    fork = driver.take_turn("v", [6], first.finished.head)
    assert fork.started.cached_tokens == 8
    assert fork.ids == continuation([*said, 6], 4)
    memory = driver.core.state().memory
    assert (memory.protected, held - memory.available) == (12, 8)  # the fork's own prompt fills a third page
    goes_on = driver.take_turn("u", [7], first.finished.head, epoch=2)
    assert (goes_on.started.cached_tokens, goes_on.ids) == (11, continuation([*said, 7], 4))


def test_a_fork_may_begin_at_an_earlier_head_and_while_its_source_runs(driver):
    first = driver.take_turn("u", [1, 2, 3, 4, 5], new=7)
    second = driver.take_turn("u", [8], first.finished.head, epoch=2)
    running = driver.turn("u", [9], second.finished.head, epoch=3, new=9)
    driver.steps(3)
    fork = driver.take_turn("v", [6], first.finished.head)
    said = [1, 2, 3, 4, 5, *first.ids]
    assert (fork.started.cached_tokens, fork.ids) == (12, continuation([*said, 6], 4))
    assert running.ids == continuation([*said, 8, *second.ids, 9], 9)


def test_a_fork_outlives_its_source(driver):
    first = driver.take_turn("u", [1, 2, 3, 4, 5], new=7)
    fork = driver.turn("v", [6], first.finished.head)
    assert driver.core.release(ReleaseRequest("u", 1))
    driver.settle()
    assert fork.started.cached_tokens == 8
    assert fork.ids == continuation([1, 2, 3, 4, 5, *first.ids, 6], 4)


def test_a_fork_with_its_history_sent_shares_all_the_same(driver):
    first = driver.take_turn("u", [1, 2, 3, 4, 5], new=7)
    turn = [1, 2, 3, 4, 5, *first.ids]
    fork = driver.take_turn("v", [6], first.finished.head, history=[pack(turn)])
    assert fork.started.cached_tokens == 8


def test_a_rollback_into_what_the_tree_owns_releases_and_computes_again(driver):
    """A rebuilt turn puts history and input into the tree: going back before its input falls below that."""
    turns = [[1, 2, 3], [4, 5]]
    sent = [pack(turn) for turn in turns]
    driver.take_turn("u", [6, 7, 8], head_of(*turns), history=sent)
    again = driver.take_turn("u", [9], head_of(*turns), epoch=2)
    assert driver.core.state().releases == {"rolled_back": 1}
    assert (again.started.cached_tokens, again.ids) == (4, continuation([1, 2, 3, 4, 5, 9], 4))
