"""The training conversations: reproducible, within their size, and free of what recall is asked with."""

import itertools
import re

import pytest

from berth_worker.builtin import dialogues
from berth_worker.builtin.dialogues import LONG, MEDIUM, SHORT, VERY_LONG, Shape
from berth_worker.builtin.recall import HELD_OUT, is_recalled, recall_items

SHAPES = [SHORT, MEDIUM, LONG, VERY_LONG]


def sample(shape: Shape, n: int = 200, seed: int = 7) -> list[dialogues.Dialogue]:
    return list(itertools.islice(dialogues.dialogues(seed, shape), n))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_seed_gives_the_same_conversations(shape: Shape) -> None:
    assert sample(shape, 20) == sample(shape, 20) != sample(shape, 20, seed=8)


@pytest.mark.parametrize("shape", SHAPES)
def test_users_and_assistant_take_turns(shape: Shape) -> None:
    for conversation in sample(shape):
        roles = [role for role, _ in conversation if role != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2)


def test_nothing_held_out_is_ever_trained_on() -> None:
    trained = {
        word
        for shape in SHAPES
        for conversation in sample(shape, 500)
        for _, text in conversation
        for word in (text.lower(), *re.findall(r"[\w-]+", text.lower()))
    }
    assert not trained & HELD_OUT


def test_recall_items_are_told_before_two_other_turns() -> None:
    items = recall_items(300, seed=3)
    assert items == recall_items(300, seed=3)
    for item in items:
        told = next(n for n, turn in enumerate(item.turns) if is_recalled(turn, item.expect))
        assert len(item.turns) - told - 2 >= 2
        assert not is_recalled(item.turns[-1], item.expect)


def test_scoring_wants_the_whole_word() -> None:
    assert is_recalled("The name of your cat is Milo.", "Milo")
    assert is_recalled("It is milo!", "Milo")
    assert not is_recalled("The name of your cat is Milos.", "Milo")
    assert not is_recalled("Your number is 1234.", "123")
