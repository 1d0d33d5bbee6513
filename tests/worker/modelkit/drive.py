"""Drives a runner without a scheduler: prompts in chunks beside others' decodes, over pages in any order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from berth_api.wire import Sampling
from berth_worker.engine.batch import SampleSpec, SequenceStep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from berth_worker.engine.batch import Runner

GREEDY = Sampling(temperature=0)


@dataclass
class Drive:
    """One sequence on its way."""

    key: int
    prompt: list[int]
    spec: SampleSpec
    limit: int
    pages: np.ndarray
    buffer: np.ndarray
    known: int
    computed: int = 0
    logprobs: list[float] = field(default_factory=list)

    @property
    def output(self) -> list[int]:
        return self.buffer[len(self.prompt) : self.known].tolist()

    @property
    def done(self) -> bool:
        return self.known == self.limit

    def step(self, chunk: int) -> SequenceStep:
        end = min(self.known, self.computed + chunk)
        sample = self.spec if end == self.known else None
        return SequenceStep(self.key, self.buffer[: self.known], self.computed, end, self.pages, sample)


def generate(
    runner: Runner,
    prompts: Sequence[list[int]],
    count: int,
    *,
    sampling: Sampling = GREEDY,
    chunk: int = 1 << 30,
    together: int = 1,
    scatter: int | None = None,
) -> list[Drive]:
    """Generate `count` tokens a prompt, `together` sequences at a time, a new one joining whenever one ends.

    A prompt enters `chunk` tokens a step, beside the decodes of the others. `scatter` seeds the order of the pages;
    None: adjacent ones. The seed of a sequence is its place in `prompts`.
    """
    waiting = list(enumerate(prompts))
    free = np.arange(runner.num_pages, dtype=np.int32)
    if scatter is not None:
        np.random.default_rng(scatter).shuffle(free)
    running: list[Drive] = []
    finished: list[Drive] = []
    while waiting or running:
        # One newcomer a step: prompts and decodes overlap in every way.
        if waiting and len(running) < together:
            key, prompt = waiting.pop(0)
            limit = len(prompt) + count
            need = -(-limit // runner.page_size)
            pages, free = free[:need], free[need:]
            buffer = np.zeros(limit, np.int32)
            buffer[: len(prompt)] = prompt
            spec = SampleSpec(sampling, seed=key, prompt_length=len(prompt), return_logprob=True)
            running.append(Drive(key, prompt, spec, limit, pages, buffer, len(prompt)))
        batch = [each.step(chunk) for each in running]
        for each, step, sampled in zip(running, batch, runner.step(batch), strict=True):
            each.computed = step.end
            if sampled.token is not None:
                each.buffer[each.known] = sampled.token
                each.known += 1
                each.logprobs.append(sampled.logprob)
        for each in [each for each in running if each.done]:
            running.remove(each)
            finished.append(each)
            free = np.concatenate([free, each.pages])
            runner.forget(each.key)
    return sorted(finished, key=lambda each: each.key)
