"""What the clients of a worker's soak share: what they did, what should not have been, and outputs to look at again."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from fleetkit.native import Native

SAMPLES = 300
"""Outputs kept for verification: an even draw from all greedy ones."""
GROUP = 8


@dataclass(frozen=True)
class Sample:
    """A greedy answer: the whole prompt, and what came."""

    prompt: tuple[int, ...]
    output: tuple[int, ...]
    told_by: str


@dataclass
class Tally:
    """`odd` is everything that should not be; set `ending` and the clients end after what they are doing."""

    done: Counter[str] = field(default_factory=Counter)
    odd: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    _dice: random.Random = field(default_factory=lambda: random.Random(0))
    _offered: int = 0

    def expect(self, holds: bool, text: str) -> None:
        """Note `text` unless it holds."""
        if not holds:
            self.odd.append(text)

    def offer(self, prompt: Sequence[int], output: Sequence[int], told_by: str) -> None:
        """Keep a greedy answer for verification, perhaps."""
        self._offered += 1
        sample = Sample(tuple(prompt), tuple(output), told_by)
        if len(self.samples) < SAMPLES:
            self.samples.append(sample)
        elif (at := self._dice.randrange(self._offered)) < SAMPLES:
            self.samples[at] = sample

    async def verify(self, worker: Native) -> None:
        """Ask each sample's whole prompt of a worker that holds nothing; the answers must be equal."""
        for first in range(0, len(self.samples), GROUP):
            group = self.samples[first : first + GROUP]
            await worker.call("/flush_cache")
            for sample, output in zip(
                group, await asyncio.gather(*(_ask(worker, each) for each in group)), strict=True
            ):
                told = f"{sample.told_by}: {list(sample.output)} where the whole prompt gives {output}"
                self.expect(list(sample.output) == output, told)


async def _ask(worker: Native, sample: Sample) -> list[int]:
    sampling = {"temperature": 0, "max_new_tokens": len(sample.output), "ignore_eos": True}
    answer = await worker.call("/generate", {"input_ids": list(sample.prompt), "sampling_params": sampling})
    ids: list[int] = answer["output_ids"]
    return ids
