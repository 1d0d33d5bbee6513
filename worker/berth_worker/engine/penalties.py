"""What a request's earlier tokens do to its next: repetition, frequency and presence penalty, `min_new_tokens`.

Counting a long history anew at every step would make a token's cost grow with it. The counts are kept under the
request's key instead, and are a cache only: they follow from its tokens, so nothing is lost with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from berth_worker.engine.batch import SampleSpec, SequenceStep


@dataclass(slots=True)
class _Counts:
    """Of one request: which ids occur below `position`, and how often in this turn's output. Both are (vocab,)."""

    seen: Tensor
    output: Tensor
    position: int = 0

    def advance(self, step: SequenceStep, prompt_length: int) -> None:
        """Count the tokens up to `step.end`; a request's tokens only ever grow."""
        fresh = torch.from_numpy(step.tokens[self.position : step.end].astype("int64"))
        self.seen[fresh] = True
        said = fresh[max(0, prompt_length - self.position) :]
        self.output.index_add_(0, said, torch.ones(len(said)))
        self.position = step.end


class PenaltyBook:
    """The penalties of all running requests."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._counts: dict[int, _Counts] = {}

    def forget(self, key: int) -> None:
        """Drop the counts of a request that ended."""
        self._counts.pop(key, None)

    def apply(self, logits: Tensor, steps: Sequence[SequenceStep], specs: Sequence[SampleSpec]) -> Tensor:
        """Return `logits` (B, vocab) after penalties: a copy where any applies, else the very same tensor."""
        penalised = [row for row, spec in enumerate(specs) if _has_penalty(spec)]
        held = [row for row, spec in enumerate(specs) if _holds_stops(spec, steps[row].end)]
        if not penalised and not held:
            return logits
        logits = logits.clone()
        for row in penalised:
            self._penalise(logits[row], steps[row], specs[row])
        for row in held:
            logits[row, [i for i in specs[row].stop_ids if i < self._vocab_size]] = float("-inf")
        return logits

    def _penalise(self, row: Tensor, step: SequenceStep, spec: SampleSpec) -> None:
        """Change `row` (vocab,) in place."""
        counts = self._counts.get(step.key)
        if counts is None:
            counts = _Counts(torch.zeros(self._vocab_size, dtype=torch.bool), torch.zeros(self._vocab_size))
            self._counts[step.key] = counts
        counts.advance(step, spec.prompt_length)
        sampling = spec.sampling
        if sampling.repetition_penalty != 1:
            # CTRL (arXiv 1909.05858): towards less likely, whatever the sign.
            factor = sampling.repetition_penalty
            harder = torch.where(row > 0, row / factor, row * factor)
            torch.where(counts.seen, harder, row, out=row)
        if sampling.frequency_penalty:
            row.sub_(counts.output, alpha=sampling.frequency_penalty)
        if sampling.presence_penalty:
            row.sub_(counts.output.sign(), alpha=sampling.presence_penalty)


def _has_penalty(spec: SampleSpec) -> bool:
    sampling = spec.sampling
    return bool(sampling.frequency_penalty or sampling.presence_penalty) or sampling.repetition_penalty != 1


def _holds_stops(spec: SampleSpec, position: int) -> bool:
    return bool(spec.stop_ids) and position - spec.prompt_length < spec.sampling.min_new_tokens
