"""Draws the next token: a pure function of (logits, seed, position, the session's tokens).

A turn that moves to another worker must go on as if nothing had happened, so there is no generator whose state could be
lost. The randomness of a draw is a counter-based hash of (seed, position, token id), used by the Gumbel-max trick
(argmax of logits + Gumbel noise is a draw from softmax): a token's noise depends neither on the rest of the batch nor
on which other tokens a filter left over.

Order: repetition, frequency and presence penalty; stop ids kept out below `min_new_tokens`; temperature; then top_k,
top_p and min_p, each on the full tempered distribution, as SGLang has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from berth_worker.engine.penalties import PenaltyBook

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from berth_api.wire import Sampling
    from berth_worker.engine.batch import SampleSpec, SequenceStep

_MASK64: Final = (1 << 64) - 1
_MASK32: Final = (1 << 32) - 1


class Sampler:
    """Draws for sequences of one vocabulary. What it keeps under a request's key is derived from its tokens alone."""

    def __init__(self, vocab_size: int) -> None:
        self._book = PenaltyBook(vocab_size)
        self._ids = torch.arange(vocab_size)

    def forget(self, key: int) -> None:
        """Drop what is kept for a request that ended."""
        self._book.forget(key)

    def draw(self, logits: Tensor, steps: Sequence[SequenceStep], specs: Sequence[SampleSpec]) -> list[int]:
        """Return a token for each row of `logits` (B, vocab), float32; `logits` is left as it is."""
        logits = self._book.apply(logits, steps, specs)
        drawn = [row for row, spec in enumerate(specs) if not _is_greedy(spec.sampling)]
        if not drawn:
            return logits.argmax(-1).tolist()
        if len(drawn) == len(specs):
            return self._random(logits, steps, specs).tolist()
        tokens = logits.argmax(-1)
        rows = torch.tensor(drawn)
        tokens[rows] = self._random(logits[rows], [steps[row] for row in drawn], [specs[row] for row in drawn])
        return tokens.tolist()

    def _random(self, logits: Tensor, steps: Sequence[SequenceStep], specs: Sequence[SampleSpec]) -> Tensor:
        keys = torch.tensor([row_keys(spec.seed, step.end) for spec, step in zip(specs, steps, strict=True)])
        samplings = [spec.sampling for spec in specs]
        temperature = torch.tensor([sampling.temperature for sampling in samplings])[:, None]
        # The maximum comes off first: a tiny temperature must not overflow.
        scaled = (logits - logits.amax(-1, keepdim=True)) / temperature
        if not any(map(_filters, samplings)):
            return (scaled + gumbel(keys, self._ids)).argmax(-1)
        values, ids = scaled.sort(dim=-1, descending=True, stable=True)
        values = values.masked_fill_(~_kept(values, samplings), float("-inf"))
        best = (values + gumbel(keys, ids)).argmax(-1, keepdim=True)
        return ids.gather(-1, best).squeeze(-1)


def _is_greedy(sampling: Sampling) -> bool:
    return sampling.temperature == 0 or sampling.top_k == 1


def _filters(sampling: Sampling) -> bool:
    return sampling.top_p < 1 or sampling.top_k > 0 or sampling.min_p > 0


def _kept(values: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    """Return which of the tempered logits (B, vocab), largest first, top_k, top_p and min_p leave over."""
    probabilities = values.softmax(-1, dtype=torch.float64)
    before = probabilities.cumsum(-1) - probabilities
    # A sum over the vocabulary may round to 1 early: top_p 1 must not cut what follows.
    top_p = torch.tensor([s.top_p if s.top_p < 1 else float("inf") for s in samplings], dtype=torch.float64)
    top_k = torch.tensor([s.top_k if s.top_k > 0 else values.shape[-1] for s in samplings])
    min_p = torch.tensor([s.min_p for s in samplings], dtype=torch.float64)
    kept = before < top_p[:, None]
    kept &= torch.arange(values.shape[-1]) < top_k[:, None]
    kept &= probabilities >= probabilities[:, :1] * min_p[:, None]
    return kept


def row_keys(seed: int, position: int) -> tuple[int, int]:
    """Return the two 32-bit keys of the draw at `position` (in the session) under `seed` (63 bits)."""
    mixed = _mix64(_mix64(seed) ^ position)
    return mixed & _MASK32, mixed >> 32


def gumbel(keys: Tensor, ids: Tensor) -> Tensor:
    """Return standard Gumbel noise, float32 (B, V), for `keys` (B, 2) and token `ids` (V,) or (B, V), all int64."""
    bits = _mix32(_mix32(ids ^ keys[:, :1]) ^ keys[:, 1:])
    # 23 bits and a half: every value is exact in float32 and none is 0 or 1.
    uniform = bits.bitwise_right_shift_(9).to(torch.float32).add_(0.5).mul_(2.0**-23)
    return uniform.log_().neg_().log_().neg_()


def _mix32(x: Tensor) -> Tensor:
    """Return a bijective hash of 32-bit values held in int64 (`x` is overwritten).

    The multipliers of Ettinger's hash-prospector (16-15-15) lie below 2^31, so no product leaves int64: the result is
    the same on every device.
    """
    x ^= x >> 16
    x.mul_(0x21F0AAAD).bitwise_and_(_MASK32)
    x ^= x >> 15
    x.mul_(0x735A2D97).bitwise_and_(_MASK32)
    x ^= x >> 15
    return x


def _mix64(x: int) -> int:
    """Return SplitMix64's finaliser of `x` plus its increment."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK64
    return x ^ (x >> 31)
