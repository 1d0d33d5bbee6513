"""What transformers says about the same weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LOGPROB_ATOL = LOGPROB_RTOL = 1e-5
BF16_ATOL = 3e-2


@torch.inference_mode()
def logprobs(model: PreTrainedModel, ids: list[int]) -> torch.Tensor:
    """Return the logprobs of every position's successor: float32 (len(ids), vocab)."""
    return model(torch.tensor([ids])).logits[0].float().log_softmax(-1)


@dataclass(frozen=True)
class Verdict:
    """What transformers makes of an output."""

    faults: list[str]
    worst: float
    """The largest difference of a logprob."""


def judge_greedy(model: PreTrainedModel, prompt: list[int], output: list[int], said: list[float]) -> Verdict:
    """Compare greedy `output` and its logprobs `said` with transformers.

    One pass over prompt and output judges all of it: if at every position the output is transformers' own choice after
    the tokens before, then by induction transformers would have generated the very same tokens.
    """
    scores = logprobs(model, prompt + output)[len(prompt) - 1 : -1]
    theirs = scores.gather(-1, torch.tensor(output)[:, None])[:, 0]
    off = (torch.tensor(said) - theirs).abs()
    faults = [
        f"token {at} is {ours}, transformers says {choice}"
        for at, (ours, choice) in enumerate(zip(output, scores.argmax(-1).tolist(), strict=True))
        if ours != choice
    ]
    faults += [
        f"logprob {at} is {said[at]}, transformers says {float(theirs[at])}"
        for at in (off > LOGPROB_ATOL + LOGPROB_RTOL * theirs.abs()).nonzero()[:, 0].tolist()
    ]
    return Verdict(faults, float(off.max()))
