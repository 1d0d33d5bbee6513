"""Draws the next token: a pure function of (logits, seed, position, the session's tokens).

Order: repetition, frequency and presence penalty; stop ids kept out below `min_new_tokens`; then what the kernels do:
temperature, top_k, top_p, min_p and the draw (see berth_kernels/ops.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth_kernels.ops import Draw
from berth_worker.engine.penalties import PenaltyBook

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from berth_kernels.ops import Ops
    from berth_worker.engine.batch import SampleSpec, SequenceStep


class Sampler:
    """Draws for sequences of one vocabulary. What it keeps under a request's key is derived from its tokens alone."""

    def __init__(self, vocab_size: int, kernels: Ops) -> None:
        self._kernels = kernels
        self._book = PenaltyBook(vocab_size)

    def forget(self, key: int) -> None:
        """Drop what is kept for a request that ended."""
        self._book.forget(key)

    def draw(self, logits: Tensor, steps: Sequence[SequenceStep], specs: Sequence[SampleSpec]) -> list[int]:
        """Return a token for each row of `logits` (B, vocab), float32; `logits` is left as it is."""
        logits = self._book.apply(logits, steps, specs)
        draws = [_draw(spec, step.end) for spec, step in zip(specs, steps, strict=True)]
        tokens: list[int] = self._kernels.sample(logits, draws).tolist()
        return tokens


def _draw(spec: SampleSpec, position: int) -> Draw:
    sampling = spec.sampling
    return Draw(spec.seed, position, sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p)
