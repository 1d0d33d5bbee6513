"""What is said to an engine that is measured: conversations of token ids, the same for every engine and every run.

Pure, and of the standard library alone: hosts import it in environments that have nothing of Berth's.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

SPECIALS = 2
"""Ids below are the model's special ones and are never said."""


@dataclass(frozen=True)
class Turn:
    """New input ids of a session, and how many output ids it is to have, greedily and whatever they are."""

    session: str
    ids: list[int]
    new: int

    @property
    def tokens(self) -> int:
        """What the history grows by."""
        return len(self.ids) + self.new


@dataclass(frozen=True)
class Plan:
    """One engine's share of a round: a conversation that grows to each of `lengths`, then a crowd."""

    vocab: int
    lengths: tuple[int, ...] = (256, 1024, 2048, 4096)
    """Tokens of history that the middle one of `repeats` measured turns finds."""
    repeats: int = 3
    input: int = 32
    output: int = 32
    speakers: int = 8
    rounds: int = 4
    """Turns of each speaker of the crowd."""
    crowd_input: int = 64
    crowd_output: int = 64

    def __post_init__(self) -> None:
        lead = self.repeats // 2 * (self.input + self.output)
        held = 0
        for length in self.lengths:
            if length - lead - held < 2:
                raise ValueError(f"no room to come to {length} tokens of history from {held}, {lead} of them measured")
            held = length - lead + self.repeats * (self.input + self.output)

    def greeting(self) -> Turn:
        """A short first turn: it wakes what an engine does at first use, and its output can be compared."""
        return Turn("greeting", words("greeting", 64, self.vocab), 32)

    def conversation(self) -> Iterator[tuple[int | None, Turn]]:
        """Yield the turns of one session: those that grow it, with None, and the measured, with their length."""
        held = 0
        for length in self.lengths:
            missing = length - self.repeats // 2 * (self.input + self.output) - held
            turns = [(None, Turn("alone", words(f"grow {length}", missing - 1, self.vocab), 1))]
            for number in range(self.repeats):
                ids = words(f"turn {length} {number}", self.input, self.vocab)
                turns.append((length, Turn("alone", ids, self.output)))
            held += sum(turn.tokens for _, turn in turns)
            yield from turns

    def crowd(self) -> list[list[Turn]]:
        """Return the turns that all speakers say at once, one list after the other."""
        return [
            [
                Turn(f"speaker{who}", words(f"crowd {number} {who}", self.crowd_input, self.vocab), self.crowd_output)
                for who in range(self.speakers)
            ]
            for number in range(self.rounds)
        ]


def words(seed: str, count: int, vocab: int) -> list[int]:
    """Return `count` random ids, the same for the same seed."""
    rng = random.Random(seed)
    return [rng.randrange(SPECIALS, vocab) for _ in range(count)]
