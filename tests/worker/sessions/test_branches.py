"""Sessions that do not stream: requests continue one another by rid, and any of them several times."""

from __future__ import annotations

import numpy as np
import pytest

from berth_api.errors import InvalidRequest, NoSuchSession, TooLong
from berth_worker.engine.requests import PromptLogprobs
from berth_worker.sessions import branches
from berth_worker.sessions.branches import PLAIN, Branch, Branches
from workerkit.driver import Driver, Heard
from workerkit.fakes import BOS, continuation


@pytest.fixture
def driver() -> Driver:
    driver = Driver()
    driver.core.open("s", 10_000, None, streaming=False)
    return driver


def send(driver: Driver, rid: str, ids: list[int], after: str | None = None, **options) -> Heard:
    """Send the request `rid` that continues `after`."""
    where = {name: options.pop(name) for name in ("offset", "replace", "drop_previous_output") if name in options}
    return driver.generate(ids, "s", rid=rid, branch=Branch(after, **where), **options)


def ask(driver: Driver, rid: str, ids: list[int], after: str | None = None, **options) -> list[int]:
    """Send the request and wait for it; return its output."""
    heard = send(driver, rid, ids, after, **options)
    driver.settle()
    return heard.ids if heard.finished else []


def refused(driver: Driver, field: str, rid: str, after: str | None = None, **options) -> str:
    """Send a request that cannot be; return the refusal."""
    with pytest.raises(InvalidRequest) as caught:
        send(driver, rid, [9], after, **options)
    assert caught.value.members["field"] == field
    return caught.value.message


# Where a request goes


def test_a_request_continues_the_one_it_names(driver):
    first = ask(driver, "a", [10, 11, 12])
    second = ask(driver, "b", [13], "a")
    assert first == continuation([10, 11, 12], 4)
    assert second == continuation([10, 11, 12, *first, 13], 4)
    assert ask(driver, "c", [14], "b") == continuation([10, 11, 12, *first, 13, *second, 14], 4)


def test_a_finished_request_is_continued_several_times(driver):
    first = ask(driver, "a", [10, 11, 12])
    for name, new in (("b", 13), ("c", 14)):
        assert ask(driver, name, [new], "a") == continuation([10, 11, 12, *first, new], 4)


def test_branches_run_at_once(driver):
    first = ask(driver, "a", [10, 11, 12])
    several = [send(driver, f"b{new}", [new], "a") for new in (13, 14, 15)]
    driver.steps()
    assert driver.core.state().running == 3
    driver.settle()
    for new, heard in zip((13, 14, 15), several, strict=True):
        assert heard.ids == continuation([10, 11, 12, *first, new], 4)


def test_branches_share_the_kv_of_what_they_continue(driver):
    ask(driver, "a", list(range(10, 20)))
    heard = send(driver, "b", [9], "a")
    driver.settle()
    # 13 ids of the first have KV, in pages of 4.
    assert (heard.started.prompt_tokens, heard.started.cached_tokens) == (15, 12)
    assert len(driver.core.slots) == 0


def test_without_a_rid_it_is_a_new_root(driver):
    first = ask(driver, "a", [10, 11])
    assert ask(driver, "b", [12]) == continuation([12], 4)
    assert ask(driver, "c", [13], "a") == continuation([10, 11, *first, 13], 4)


def test_the_output_can_be_left_out(driver):
    first = ask(driver, "a", [10, 11])
    second = ask(driver, "b", [12], "a", drop_previous_output=True)
    assert second == continuation([10, 11, 12], 4)
    assert ask(driver, "c", [13], "b", drop_previous_output=True) == continuation([10, 11, 12, 13], 4)
    assert ask(driver, "d", [14], "b") == continuation([10, 11, 12, *second, 14], 4)
    assert ask(driver, "e", [15], "a") == continuation([10, 11, *first, 15], 4)


@pytest.mark.parametrize("offset", [1, 2, 3, 6, -1, -5])
def test_an_offset_keeps_so_many_ids_or_leaves_so_many_out(driver, offset):
    whole = [10, 11, *ask(driver, "a", [10, 11])]
    cut = ask(driver, "b", [12], "a", offset=offset)
    assert cut == continuation([*whole[:offset], 12], 4)
    assert ask(driver, "c", [13], "b") == continuation([*whole[:offset], 12, *cut, 13], 4)


@pytest.mark.parametrize(
    ("offset", "options", "possible"),
    [(7, {}, "1 to 6"), (-6, {}, "-5 to -1"), (3, {"drop_previous_output": True}, "1 to 2")],
)
def test_an_offset_out_of_range_is_refused_and_the_range_told(driver, offset, options, possible):
    ask(driver, "a", [10, 11])
    assert possible in refused(driver, "session_params.offset", "b", "a", offset=offset, **options)


def test_at_the_root_there_is_nothing_to_keep(driver):
    refused(driver, "session_params.offset", "a", offset=1)
    assert ask(driver, "a", [10], offset=-1, drop_previous_output=True) == continuation([10], 4)


def test_a_leading_bos_is_dropped_where_something_is_continued(driver):
    first = ask(driver, "a", [BOS, 10])
    assert ask(driver, "b", [BOS, 11], "a") == continuation([BOS, 10, *first, 11], 4)
    assert ask(driver, "c", [BOS, 11]) == continuation([BOS, 11], 4)
    with pytest.raises(InvalidRequest, match="empty"):
        send(driver, "d", [BOS], "a")


def test_an_unknown_rid_is_refused_by_name(driver):
    refused(driver, "session_params.rid", "b", "nobody")
    refused(driver, "session_params.rid", "b", "b")
    assert ask(driver, "b", [3]) == continuation([3], 4)


def test_what_is_in_flight_cannot_be_continued_yet(driver):
    first = send(driver, "a", [10])
    for steps in (0, 2):
        driver.steps(steps)
        for replacing in (False, True):
            assert "in flight" in refused(driver, "session_params.rid", "b", "a", replace=replacing)
    driver.settle()
    assert first.ids == continuation([10], 4)
    assert ask(driver, "b", [11], "a") == continuation([10, *first.ids, 11], 4)


def test_a_rid_is_taken_once(driver):
    ask(driver, "a", [10])
    refused(driver, "rid", "a")
    refused(driver, "rid", "a", "a")
    send(driver, "b", [11], "a")
    refused(driver, "rid", "b")
    driver.core.open("t", 100, None, streaming=False)
    assert driver.say("t", [12], rid="a").ids == continuation([12], 4)


def test_prefill_only_can_be_continued(driver):
    assert ask(driver, "a", [10, 11], new=0) == []
    assert ask(driver, "b", [12], "a") == continuation([10, 11, 12], 4)


def test_input_logprobs_of_a_branch_are_told_from_where_they_were_asked_for(driver):
    ask(driver, "a", list(range(10, 20)))
    heard = send(driver, "b", [9], "a", return_logprob=True, logprob_start=5)
    driver.settle()
    [told] = [event for event in heard.events if isinstance(event, PromptLogprobs)]
    assert told.logprobs == [None, *[-float(at) for at in range(6, 15)]]
    assert heard.started.cached_tokens == 12


# Replacing


def test_replace_drops_what_continued_the_request(driver):
    first = ask(driver, "a", [10])
    ask(driver, "b", [11], "a")
    ask(driver, "c", [12], "b")
    assert ask(driver, "d", [13], "a", replace=True) == continuation([10, *first, 13], 4)
    for gone in ("b", "c"):
        refused(driver, "session_params.rid", "e", gone)
    assert ask(driver, "b", [14], "d")


def test_replace_leaves_other_branches_alone(driver):
    ask(driver, "a", [10])
    second = ask(driver, "other", [20])
    ask(driver, "b", [11], "a", replace=True)
    assert ask(driver, "c", [21], "other") == continuation([20, *second, 21], 4)


def test_replace_without_a_rid_drops_everything(driver):
    for name in ("a", "b"):
        ask(driver, name, [10])
    queued = send(driver, "c", [11])
    assert ask(driver, "d", [12], replace=True) == continuation([12], 4)
    assert queued.aborted.reason == "superseded"
    for gone in ("a", "b", "c"):
        refused(driver, "session_params.rid", "e", gone)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_replace_aborts_what_is_in_flight(driver, steps):
    first = ask(driver, "a", [10])
    ask(driver, "b", [11], "a")
    late = [send(driver, "c", [12], "a", new=50), send(driver, "d", [12], "b", new=50)]
    apart = send(driver, "other", [20])
    driver.steps(steps)
    assert ask(driver, "e", [13], "a", replace=True) == continuation([10, *first, 13], 4)
    assert [heard.aborted.reason for heard in late] == ["superseded"] * 2
    assert apart.ids == continuation([20], 4)


def test_a_replaced_rid_may_be_used_again(driver):
    first = ask(driver, "a", [10])
    ask(driver, "b", [11], "a")
    assert ask(driver, "b", [12], "a", replace=True) == continuation([10, *first, 12], 4)
    refused(driver, "rid", "a", "a", replace=True)


@pytest.mark.parametrize(("ids", "new"), [([300], 4), ([], 4), ([9] * 200, 4)])
def test_a_refused_request_replaces_nothing(driver, ids, new):
    first = ask(driver, "a", [10])
    second = ask(driver, "b", [11], "a")
    running = send(driver, "c", [12], "a")
    with pytest.raises((InvalidRequest, TooLong)):
        send(driver, "d", ids, "a", replace=True, new=new)
    driver.settle()
    assert running.ids == continuation([10, *first, 12], 4)
    assert ask(driver, "e", [13], "b") == continuation([10, *first, 11, *second, 13], 4)


def test_replacing_spares_a_gateways_turn_of_the_same_name(driver):
    ask(driver, "a", [10])
    replaced = send(driver, "b", [11], "a")
    turn = driver.turn("uid", [1, 2], turn="b")
    ask(driver, "c", [12], "a", replace=True)
    assert replaced.aborted
    assert turn.ids == continuation([1, 2], 4)


# Ends


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_an_aborted_request_leaves_no_node(driver, steps):
    first = ask(driver, "a", [10])
    heard = send(driver, "b", [11], "a", new=50)
    driver.steps(steps)
    driver.core.abort("b")
    driver.settle()
    assert heard.aborted.reason == "abort"
    refused(driver, "session_params.rid", "c", "b")
    assert ask(driver, "b", [12], "a") == continuation([10, *first, 12], 4)
    memory = driver.core.state().memory
    assert memory.available + memory.evictable == memory.total


def test_a_failed_step_leaves_no_node(driver):
    driver.runner.fail = RuntimeError("broken")
    heard = send(driver, "a", [10])
    driver.steps()
    driver.runner.fail = None
    assert heard.aborted.reason == "internal_error"
    refused(driver, "session_params.rid", "b", "a")


def test_close_waits_for_every_request_in_flight(driver):
    ask(driver, "a", [10])
    short, long = send(driver, "b", [11], "a", new=2), send(driver, "c", [12], "a", new=9)
    driver.core.close("s")
    driver.core.close("s")
    refused(driver, "session_params.id", "d", "a")
    while not short.ended:
        driver.steps()
    assert not long.ended
    assert len(driver.core.native) == 1
    driver.settle()
    assert long.ids == continuation([10, *continuation([10], 4), 12], 9)
    with pytest.raises(NoSuchSession):
        driver.core.close("s")


def test_an_abort_completes_a_deferred_close(driver):
    send(driver, "a", [10], new=50)
    driver.core.close("s")
    driver.core.abort("a")
    assert len(driver.core.native) == 0


def test_close_drops_the_tree(driver):
    ask(driver, "a", [10])
    driver.core.close("s")
    driver.core.open("s", 100, None, streaming=False)
    refused(driver, "session_params.rid", "b", "a")


def test_reaping_waits_for_the_last_request_and_then_for_the_timeout():
    driver = Driver()
    driver.core.open("s", 100, 5.0, streaming=False)
    ask(driver, "a", [10])
    short, long = send(driver, "b", [11], "a", new=2), send(driver, "c", [12], "a", new=9)
    while not short.ended:
        driver.steps()
    driver.now = 100.0
    assert not driver.core.reap()
    driver.settle()
    assert long.finished
    driver.now = 105.0
    assert not driver.core.reap()
    driver.now = 105.1
    assert driver.core.reap()
    assert len(driver.core.native) == 0


def test_capacity_bounds_history_input_and_output_of_each_branch():
    driver = Driver()
    driver.core.open("s", 10, None, streaming=False)
    assert len(ask(driver, "a", [1, 2, 3], new=4)) == 4
    assert len(ask(driver, "b", [4], "a", new=50)) == 2
    with pytest.raises(TooLong):
        send(driver, "c", [5], "b")
    with pytest.raises(TooLong):
        send(driver, "c", [5] * 3, "a")
    assert len(ask(driver, "c", [5], "b", new=50, offset=4)) == 5
    assert len(ask(driver, "d", [6] * 3, new=50)) == 7


def test_flush_wipes_kv_and_keeps_tokens(driver):
    first = ask(driver, "a", list(range(10, 20)))
    driver.core.flush()
    heard = send(driver, "b", [9], "a")
    driver.settle()
    assert heard.started.cached_tokens == 0
    assert heard.ids == continuation([*range(10, 20), *first, 9], 4)


def test_a_streaming_session_has_one_history_and_looks_at_no_rid():
    driver = Driver()
    driver.core.open("s", 100, None)
    first = ask(driver, "a", [10])
    assert ask(driver, "b", [11], "nobody") == continuation([10, *first, 11], 4)
    for option in ({"replace": True}, {"drop_previous_output": True}, {"offset": 3}, {"offset": -1}):
        refused(driver, f"session_params.{next(iter(option))}", "c", **option)


# The tree itself


def grow(tree: Branches, rid: str, after: str | None, *ids: int) -> None:
    """Have `rid` continue `after` with `ids`, the last of which is its output."""
    place = tree.place(rid, Branch(after))
    tree.begin(place)
    whole = np.array([*place.history, *ids], np.int32)
    tree.end(rid, whole, len(whole) - 1)


def test_a_history_is_kept_once_however_often_it_is_continued():
    tree = Branches()
    grow(tree, "a", None, *range(1000))
    for name in ("b", "c"):
        grow(tree, name, "a", 1, 2)
    places = [tree.place("d", Branch(name)) for name in ("b", "c")]
    assert [place.history.tolist() for place in places] == [[*range(1000), 1, 2]] * 2
    assert [place.parent.ids.base for place in places] == [None, None]
    assert [place.parent.ids.nbytes for place in places] == [8, 8]
    assert places[0].parent.parent is places[1].parent.parent


def test_only_so_many_requests_are_kept(monkeypatch):
    monkeypatch.setattr(branches, "REQUESTS_KEPT", 3)
    tree = Branches()
    for name in ("a", "b"):
        grow(tree, name, None, 1, 2)
    tree.begin(tree.place("c", PLAIN))
    with pytest.raises(InvalidRequest, match="keeps 3 requests"):
        tree.place("d", Branch("a"))
    place = tree.place("d", Branch(replace=True))
    assert (place.dropped, place.aborted) == (("a", "b"), ("c",))


def test_looking_for_a_place_changes_nothing():
    tree = Branches()
    grow(tree, "a", None, 1, 2)
    tree.place("b", Branch(replace=True))
    assert (len(tree), tree.running) == (1, 0)
    assert tree.place("b", Branch("a")).history.tolist() == [1, 2]
