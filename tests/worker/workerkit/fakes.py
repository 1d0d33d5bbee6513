"""A runner whose output depends on every token that it reads back through the page tables it is given.

It stores each token at (page, slot in the page), reads what lies before `start` back from the pages and compares it
with the tokens themselves: a wrong page table, a page with two owners or one freed too early is an error at that step,
not a strange word later.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from berth_worker.engine.batch import Sampled, SampleSpec, SequenceStep

EOS, BOS = 1, 2
VOCAB = 300
POISON = -1


class WrongKV(AssertionError):
    """What was read through a page table is not what the sequence wrote."""


class FakeRunner:
    """Deterministic: the next token is a hash of the seed and all tokens before it. Letters mostly, never EOS."""

    def __init__(self, num_pages: int = 64, page_size: int = 4) -> None:
        self.vocab_size = VOCAB
        self.num_pages = num_pages
        self.page_size = page_size
        self.memory = np.full((num_pages, page_size), POISON, np.int64)
        self.script: dict[int, int] = {}
        """Position to token: what is to come at a position whatever the hash says."""
        self.batches: list[list[tuple[int, int, int]]] = []
        """Each step's (key, start, end)."""
        self.forgotten: set[int] = set()
        self.fail: Exception | None = None
        self.wrong: WrongKV | None = None
        """The first wrong thing that was noticed. The engine survives a step that raises; a test must not."""
        self.computed = 0
        """Tokens that went through the model."""

    def step(self, batch: list[SequenceStep]) -> list[Sampled]:
        self.batches.append([(step.key, step.start, step.end) for step in batch])
        if self.fail is not None:
            raise self.fail
        try:
            self._check_owners(batch)
            return [self._one(step) for step in batch]
        except WrongKV as wrong:
            self.wrong = self.wrong or wrong
            raise

    def forget(self, key: int) -> None:
        self.forgotten.add(key)

    def _check_owners(self, batch: list[SequenceStep]) -> None:
        """Many may read a page, one may write it, and then nobody else has it."""
        users = Counter(page for step in batch for page in step.pages.tolist())
        for step in batch:
            for page in step.pages[max(step.start, step.kept) // self.page_size :].tolist():
                if users[page] > 1:
                    raise WrongKV(f"page {page}, which sequence {step.key} may write, is another's too")

    def _one(self, step: SequenceStep) -> Sampled:
        positions = np.arange(step.end)
        where = step.pages[positions // self.page_size], positions % self.page_size
        old = min(max(step.start, step.kept), step.end)
        read = self.memory[where][:old]
        if not np.array_equal(read, step.tokens[:old]):
            raise WrongKV(f"sequence {step.key} reads {read.tolist()}, wrote {step.tokens[:old].tolist()}")
        self.memory[where] = step.tokens[: step.end]
        self.computed += step.end - step.start
        result = Sampled()
        if step.prompt_logprobs_from is not None:
            known = step.end + 1 if step.sample is None and step.end < len(step.tokens) else step.end
            for at in range(max(step.start + 1, step.prompt_logprobs_from), known):
                result.prompt_logprobs.append(-float(at))
                result.prompt_top.append([(-float(at), int(step.tokens[at]))] * step.prompt_top_logprobs)
        if step.sample is not None:
            result.token = self.script.get(step.end, next_token(step.tokens[: step.end], step.sample))
            result.logprob = -1.0 / (1 + result.token)
            result.top = [(-0.5, result.token)] * step.sample.top_logprobs
        return result


def next_token(tokens: np.ndarray, sample: SampleSpec) -> int:
    """The token that follows `tokens` under `sample`: a letter."""
    state = sample.seed & 0xFFFF
    for token in tokens.tolist():
        state = (state * 31 + token + 7) % 1_000_003
    return ord("a") + state % 26


def continuation(tokens: list[int], count: int, seed: int = 7) -> list[int]:
    """The `count` tokens that follow `tokens`."""
    spec, known = SampleSpec(None, seed, len(tokens)), list(tokens)
    for _ in range(count):
        known.append(next_token(np.array(known), spec))
    return known[len(tokens) :]


class FakeStream:
    """One id a character; ids from 256 on are two-byte beginnings that show nothing until the next id."""

    def __init__(self) -> None:
        self._held = ""

    def push(self, token: int) -> str:
        if token >= 256:
            self._held += "~"
            return ""
        text, self._held = self._held + ("" if token in (EOS, BOS) else chr(token)), ""
        return text

    def flush(self) -> str:
        text, self._held = "\ufffd" * len(self._held), ""
        return text


class FakeTokenizer:
    """Characters are ids."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [BOS] * add_special_tokens + [min(ord(letter), 255) for letter in text]

    def stream(self, *, skip_special_tokens: bool) -> FakeStream:
        return FakeStream()

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        return "".join(chr(token) for token in ids)
