"""Natural logarithms of the model's own distribution: before penalties, temperature and filters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from berth_worker.engine.batch import Sampled, SequenceStep
    from berth_worker.models.decoder import Decoder

LOGIT_ELEMENTS: Final = 1 << 22
"""Most logits at once for prompt logprobs: a long prompt times a large vocabulary would not fit."""

Top = list[tuple[float, int]]


def token_logprobs(logits: Tensor, tokens: Sequence[int], top: int) -> tuple[list[float], list[Top]]:
    """Return the logprob of a token a row of `logits` (R, vocab), float32, and the `top` most likely (logprob, id)."""
    logprobs = logits.log_softmax(-1)
    chosen: list[float] = logprobs.gather(-1, torch.tensor(tokens)[:, None]).squeeze(-1).tolist()
    if not top:
        return chosen, [[] for _ in tokens]
    values, ids = logprobs.topk(min(top, logprobs.shape[-1]), dim=-1)
    pairs = zip(values.tolist(), ids.tolist(), strict=True)
    return chosen, [list(zip(row_values, row_ids, strict=True)) for row_values, row_ids in pairs]


def prompt_logprobs(step: SequenceStep, first: int, hidden: Tensor, decoder: Decoder, result: Sampled) -> None:
    """Add the logprobs of `step.tokens[i]`, i from `first` on, to `result`; `hidden` are the step's own rows."""
    known = step.end + 1 if step.sample is None and step.end < len(step.tokens) else step.end
    block = max(1, LOGIT_ELEMENTS // decoder.config.vocab_size)
    for position in range(max(step.start + 1, first), known, block):
        tokens = step.tokens[position : min(position + block, known)].tolist()
        row = position - 1 - step.start  # the row of position i - 1 tells about token i
        scores = decoder.logits(hidden[row : row + len(tokens)])
        chosen, top = token_logprobs(scores, tokens, step.prompt_top_logprobs)
        result.prompt_logprobs += chosen
        result.prompt_top += top
