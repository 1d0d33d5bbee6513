"""What is said to every engine must be the same, of the announced lengths, and within the vocabulary."""

from __future__ import annotations

import pytest
from conversations import SPECIALS, Plan, words

PLAN = Plan(vocab=500)


def test_the_middle_measured_turn_finds_exactly_its_length_of_history():
    held, found = 0, {}
    for length, turn in PLAN.conversation():
        if length is not None:
            found.setdefault(length, []).append(held)
        held += turn.tokens
    assert {length: histories[PLAN.repeats // 2] for length, histories in found.items()} == {n: n for n in PLAN.lengths}
    assert all(len(histories) == PLAN.repeats for histories in found.values())


def test_a_single_measured_turn_finds_exactly_its_length_too():
    plan, held = Plan(vocab=500, repeats=1), 0
    for length, turn in plan.conversation():
        assert length is None or held == length
        held += turn.tokens


def test_measured_turns_have_the_announced_sizes():
    sizes = {(len(turn.ids), turn.new) for length, turn in PLAN.conversation() if length is not None}
    assert sizes == {(PLAN.input, PLAN.output)}


def test_a_crowd_is_of_different_speakers_with_turns_of_one_size():
    crowd = PLAN.crowd()
    assert len(crowd) == PLAN.rounds
    for turns in crowd:
        assert len({turn.session for turn in turns}) == PLAN.speakers
        assert len({tuple(turn.ids) for turn in turns}) == PLAN.speakers  # no prefix of one is another's
        assert {(len(turn.ids), turn.new) for turn in turns} == {(PLAN.crowd_input, PLAN.crowd_output)}


def test_no_turn_repeats_the_words_of_another():
    said = [tuple(turn.ids) for _, turn in PLAN.conversation()]
    said += [tuple(turn.ids) for turns in PLAN.crowd() for turn in turns]
    assert len(set(said)) == len(said)


def test_lengths_without_room_between_them_are_refused():
    with pytest.raises(ValueError, match="no room to come to 300 tokens of history from 384"):
        Plan(vocab=500, lengths=(256, 300))


def test_words_are_of_the_vocabulary_and_the_same_for_the_same_seed():
    said = words("a", 5000, 12)
    assert set(said) == set(range(SPECIALS, 12))
    assert said == words("a", 5000, 12)
    assert said != words("b", 5000, 12)
