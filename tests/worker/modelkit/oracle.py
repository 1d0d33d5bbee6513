"""What transformers says about the same weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel

    from modelkit.talk import Said

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


def faults_of(model: PreTrainedModel, turns: Sequence[Said]) -> list[str]:
    """Compare the greedy turns of one conversation, and all logprobs told with them, with transformers.

    Each turn's prompt begins with all that was said before, so one pass over the last of them judges every turn: as in
    `judge_greedy`, but that a token counts as the best one where the two tie within the tolerance for logprobs. Over
    many thousand tokens some do, and which of them an engine then takes depends on who else is in its batch.
    """
    ids = turns[-1].ids
    scores = logprobs(model, ids)
    found = []
    for number, said in enumerate(turns):
        if said.ids != ids[: len(said.ids)]:
            found.append(f"turn {number} is not part of the conversation")
        start, end = len(said.prompt), len(said.ids)
        best = scores[start - 1 : end - 1].max(-1).values
        found += _far(f"turn {number}: the best", best, scores, said.output, start)
        for kind, stop in (("input", start), ("output", end)):
            told = said.logprobs(kind) or []
            first = stop - len(told)
            if [token for _, token in told] != ids[first:stop]:
                found.append(f"turn {number}: {kind} logprobs are of other tokens: {told}")
                continue
            skip = kind == "input"  # the first one has nothing before it to follow from
            values = [-1.0 if value is None else value for value, _ in told[skip:]]
            found += _far(
                f"turn {number}: {kind}", torch.tensor(values), scores, ids[first + skip : stop], first + skip
            )
    return found


def _far(name: str, said: torch.Tensor, scores: torch.Tensor, ids: list[int], start: int) -> list[str]:
    """Say where logprobs `said` of `ids`, from position `start` on, are not transformers'."""
    if not ids:
        return []
    theirs = scores[start - 1 : start - 1 + len(ids)].gather(-1, torch.tensor(ids)[:, None])[:, 0]
    off = (said - theirs).abs() > LOGPROB_ATOL + LOGPROB_RTOL * theirs.abs()
    return [
        f"{name} logprob at {start + at} is {float(said[at])}, transformers says {float(theirs[at])}"
        for at in off.nonzero()[:, 0].tolist()
    ]
