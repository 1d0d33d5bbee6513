"""Conversations as batches: ids, what each id weighs as a target, and positions.

The conversations grow as training goes on: looking a value up forms quickly on short ones and then stretches, while a
start on long ones would spend most of the time before it forms at all. Then the positions leap between messages in a
quarter of the rows, so that distances up to the model's whole context are seen at the price of short conversations.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch

from berth_worker.builtin import dialogues as talk
from berth_worker.builtin.tokenizer import ASSISTANT, BOS, END, MAX_LENGTH, PAD, SYSTEM, USER

MARKERS: Final = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}
SEED: Final = 20260
USER_WEIGHT: Final = 0.1  # of the loss on what the user says: enough to learn English, too little to learn noise


@dataclass(frozen=True)
class Example:
    """One conversation: ids, the weight of each id as a target, and where its messages start."""

    ids: list[int]
    weights: list[float]
    starts: list[int]


def encode(dialogue: talk.Dialogue) -> Example:
    """A conversation as the chat template renders it."""
    ids, weights, starts = [BOS], [0.0], []
    for role, text in dialogue:
        starts.append(len(ids))
        raw = text.encode()
        own = role == "assistant"
        ids += [MARKERS[role], *raw, END]
        weights += [0.0, *([1.0 if own else USER_WEIGHT] * len(raw)), 1.0 if own else USER_WEIGHT]
    return Example(ids, weights, starts)


MIXTURES: Final[tuple[tuple[int, tuple[tuple[talk.Shape, float], ...]], ...]] = (
    (240, ((talk.DRILL, 0.5), (talk.SHORT, 0.5))),
    (750, ((talk.DRILL, 0.05), (talk.SHORT, 0.85), (talk.MEDIUM, 0.1))),
    (1300, ((talk.SHORT, 0.25), (talk.MEDIUM, 0.65), (talk.LONG, 0.1))),
    (1900, ((talk.SHORT, 0.1), (talk.MEDIUM, 0.5), (talk.LONG, 0.4))),
)
"""The shares of the conversation shapes (by ids), each up to a step; `LAST_MIXTURE` from there on."""
LAST_MIXTURE: Final = ((talk.SHORT, 0.08), (talk.MEDIUM, 0.35), (talk.LONG, 0.45), (talk.VERY_LONG, 0.12))
LEAPS_FROM: Final = 1000  # the step from which positions may leap: lookup must have formed


def mixture(step: int) -> tuple[tuple[talk.Shape, float], ...]:
    """The shares of the conversation shapes at `step`."""
    return next((shares for until, shares in MIXTURES if step < until), LAST_MIXTURE)


@dataclass(frozen=True)
class Batch:
    """Padded conversations of one shape: all are [rows, width]."""

    ids: torch.Tensor
    weights: torch.Tensor
    positions: torch.Tensor

    def part(self, rank: int, world: int) -> "Batch":
        """Every `world`-th row, from `rank` on."""
        rows = slice(rank, None, world)
        return Batch(self.ids[rows], self.weights[rows], self.positions[rows])


def positions_of(example: Example, width: int, rng: random.Random, leap: bool) -> list[int]:
    """0, 1, 2, …, or the same with a random leap before some messages, within `MAX_LENGTH`."""
    room = MAX_LENGTH - width
    leaps = dict.fromkeys(range(width), 0)
    if leap and rng.random() < 0.25 and room > 0:
        total = int(room * rng.random() ** 2)
        cuts = sorted(rng.randint(0, total) for _ in example.starts)
        for start, low, high in zip(example.starts, [0, *cuts], cuts, strict=False):
            leaps[start] = high - low
    positions, at = [], -1
    for index in range(width):
        at += 1 + leaps[index]
        positions.append(at)
    return positions


def collate(examples: list[Example], rng: random.Random, leap: bool) -> Batch:
    """Right-padded: causal attention needs no mask then, and padding has no weight."""
    width = max(len(example.ids) for example in examples)
    width = min(MAX_LENGTH, -(-width // 32) * 32)
    ids = [example.ids + [PAD] * (width - len(example.ids)) for example in examples]
    weights = [example.weights + [0.0] * (width - len(example.weights)) for example in examples]
    positions = [positions_of(example, width, rng, leap) for example in examples]
    return Batch(torch.tensor(ids), torch.tensor(weights), torch.tensor(positions))


def batches(steps: int, tokens: int, first: int = 0) -> Iterator[Batch]:
    """The batches of at most `tokens` ids, from step `first` on; each depends on its step alone."""
    for step in range(first, steps):
        rng = random.Random(f"{SEED}-{step}")
        shapes, shares = zip(*mixture(step), strict=True)
        shape = rng.choices(shapes, shares)[0]
        source = talk.dialogues(seed=rng.randrange(2**40), shape=shape)
        pool = [encode(next(source)) for _ in range(max(4, 3 * tokens // shape.limit))]
        yield collate(neighbours(pool, tokens, rng), rng, leap=step >= LEAPS_FROM)


def neighbours(pool: list[Example], tokens: int, rng: random.Random) -> list[Example]:
    """As many of `pool` as fit in `tokens` (two at least), all of about one length: little padding."""
    pool = sorted(pool, key=lambda example: len(example.ids))
    at = rng.randrange(len(pool))
    chosen = [pool[at]]
    while len(chosen) < len(pool):
        at = at - 1 if at else len(pool) - 1
        longest = max(len(chosen[0].ids), len(pool[at].ids))
        if len(chosen) > 1 and (len(chosen) + 1) * longest > tokens:
            break
        chosen.append(pool[at])
    return chosen
