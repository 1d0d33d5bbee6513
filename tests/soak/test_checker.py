"""Each rule of the checker fails where it must, and only there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from checker import Attempt, Entry, History, check, pack

from berth_api import heads


def attempt(number: int, **changes) -> Attempt:
    """A committed turn: input (number, 7), output (number, 8, 9), sent at `number`, done half a second later."""
    made = Attempt(
        session="a",
        input_ids=(number, 7),
        outcome="committed",
        output_ids=(number, 8, 9),
        turn=f"turn-{number}",
        position=number,
        sent_at=float(number),
        ended_at=number + 0.5,
    )
    return replace(made, **changes)


def history(attempts: list[Attempt], **changes) -> History:
    """The history that holds exactly these attempts in this order."""
    head, entries, tokens = heads.ROOT, [], 0
    for made in attempts:
        head = heads.advance(head, pack(made.input_ids + made.output_ids))
        tokens += len(made.input_ids) + len(made.output_ids)
        entries.append(Entry(made.input_ids, made.output_ids, head, made.turn))
    return replace(History("a", head, len(entries), tokens, tuple(entries)), **changes)


def rules(attempts: list[Attempt], *histories: History) -> set[str]:
    return {violation.rule for violation in check(attempts, histories)}


def test_a_sound_run_has_no_violations():
    turns = [attempt(number) for number in range(5)]
    others = [
        attempt(5, outcome="aborted", position=None),
        attempt(6, outcome="refused", position=None),
        attempt(7, outcome="unknown", position=None),
    ]
    assert rules(turns + others, history(turns)) == set()


@pytest.mark.parametrize("output", [(), (1, 2, 3)])
def test_an_unknown_turn_may_be_there_or_not(output):
    known, unknown = attempt(0), attempt(1, outcome="unknown", position=None, output_ids=output)
    assert rules([known, unknown], history([known])) == set()
    assert rules([known, unknown], history([known, replace(unknown, output_ids=(4, 5))])) == set()


def test_a_lost_turn_is_found():
    turns = [attempt(0), attempt(1)]
    assert rules(turns, history(turns[:1])) == {"lost"}


def test_a_turn_committed_twice_is_found():
    turns = [attempt(0), attempt(1)]
    assert rules(turns, history([turns[0], turns[1], turns[1]])) == {"doubled"}


def test_an_unknown_turn_committed_twice_is_found():
    unknown = attempt(0, outcome="unknown")
    assert rules([unknown], history([unknown, unknown])) == {"doubled"}


def test_other_tokens_than_the_client_was_sent_are_found():
    sent = attempt(0)
    assert rules([sent], history([replace(sent, output_ids=(0, 8, 8))])) == {"altered"}


@pytest.mark.parametrize("outcome", ["committed", "unknown"])
def test_ids_that_contradict_what_was_streamed_are_found(outcome):
    sent = attempt(0, seen_ids=(0, 7), outcome=outcome)
    assert rules([sent], history([sent])) == {"contradicted"}


def test_ids_streamed_before_a_failure_are_a_beginning():
    sent = attempt(0, seen_ids=(0, 8))
    assert rules([sent], history([sent])) == set()


def test_a_missing_last_token_is_found():
    sent = attempt(0)
    assert rules([sent], history([replace(sent, output_ids=(0, 8))])) == {"altered"}


def test_a_head_other_than_the_acknowledged_is_found():
    sent = attempt(0, head="0" * 40)
    assert rules([sent], history([sent])) == {"altered"}


def test_a_turn_at_another_position_is_found():
    turns = [attempt(0, position=1), attempt(1, position=0)]
    assert rules(turns, history(turns)) == {"misplaced"}


def test_two_acknowledgements_of_one_position_are_found():
    turns = [attempt(0), attempt(1, position=0)]
    assert "overlap" in rules(turns, history(turns))


@pytest.mark.parametrize("outcome", ["aborted", "refused"])
def test_a_turn_that_should_not_count_is_found(outcome):
    turn = attempt(0, outcome=outcome, position=None)
    assert rules([turn], history([turn])) == {"uncommitted"}


def test_a_turn_of_somebody_else_is_found():
    assert rules([attempt(0)], history([attempt(0), attempt(9)])) == {"foreign"}


def test_a_turn_of_another_session_is_found():
    elsewhere = attempt(1, session="b", position=0)
    own = history([attempt(0), elsewhere])
    assert rules([attempt(0), elsewhere], own, replace(history([elsewhere]), session="b")) == {"foreign"}


def test_a_wrong_head_in_the_middle_is_found():
    whole = history([attempt(0), attempt(1)])
    entries = (replace(whole.entries[0], head="f" * 40), whole.entries[1])
    assert rules([attempt(0), attempt(1)], replace(whole, entries=entries)) == {"chain"}


@pytest.mark.parametrize("change", [{"head": "0" * 40}, {"turns": 3}, {"tokens": 1}])
def test_a_view_that_differs_from_the_history_is_found(change):
    turns = [attempt(0), attempt(1)]
    assert rules(turns, history(turns, **change)) == {"chain"}


def test_turns_against_the_order_of_time_are_found():
    turns = [attempt(0, position=None), attempt(1, position=None)]
    assert rules(turns, history([turns[1], turns[0]])) == {"order"}


def test_turns_that_overlapped_in_time_may_stand_either_way():
    turns = [attempt(0, position=None, ended_at=9.0), attempt(1, position=None, ended_at=9.0)]
    assert rules(turns, history([turns[1], turns[0]])) == set()


@pytest.mark.parametrize(("said", "present"), [("aborted", True), ("committed", False)])
def test_an_outcome_that_contradicts_the_history_is_found(said, present):
    turn, other = attempt(0, outcome="unknown"), attempt(1)
    listed = [turn, other] if present else [other]
    found = history(listed, outcomes={"turn-0": said})
    assert "outcome" in rules([turn, replace(other, position=len(listed) - 1)], found)


def test_a_fork_shares_its_source_and_goes_on():
    source = [attempt(0), attempt(1), attempt(2)]
    own = attempt(5, session="fork", position=2)
    fork = replace(history([*source[:2], own]), session="fork", fork_of=("a", 2))
    assert rules([*source, own], history(source), fork) == set()


def test_a_fork_of_something_else_is_found():
    source = [attempt(0), attempt(1)]
    fork = replace(history([attempt(1), attempt(0)]), session="fork", fork_of=("a", 2))
    assert "foreign" in rules(source, history(source), fork)


def test_an_empty_session_is_sound():
    assert rules([], history([])) == set()
