"""The definition of what is not attention: plain torch, on whatever device the tensors are."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from berth_kernels.noise import gumbel, row_keys
from berth_kernels.ops import check_copies, check_draws

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from berth_kernels.interface import KVLayer
    from berth_kernels.ops import Draw


class ReferenceOps:
    """Torch."""

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return functional.linear(x, weight, bias)

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        if x.dtype == torch.float32:
            return functional.rms_norm(x, (x.shape[-1],), weight, eps)
        # Rounded before the weight as well as after it: the order that these models were trained with.
        return weight * functional.rms_norm(x.float(), (x.shape[-1],), None, eps).to(x.dtype)

    def add_rms_norm(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
        return self.rms_norm(residual.add_(x), weight, eps)

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return (x * cos).add_(x.roll(x.shape[-1] // 2, -1).mul_(sin))

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, -1)
        return functional.silu(gate).mul_(up)

    def sample(self, logits: Tensor, draws: Sequence[Draw]) -> Tensor:
        check_draws(logits, draws)
        drawn = [row for row, draw in enumerate(draws) if not draw.greedy]
        if not drawn:
            return logits.argmax(-1)
        if len(drawn) == len(draws):
            return _random(logits, draws)
        tokens = logits.argmax(-1)
        rows = torch.tensor(drawn, device=logits.device)
        tokens[rows] = _random(logits[rows], [draws[row] for row in drawn])
        return tokens

    def copy_pages(self, pool: Sequence[KVLayer], sources: NDArray[np.int32], targets: NDArray[np.int32]) -> None:
        check_copies(len(pool[0].key), sources, targets)
        device = pool[0].key.device
        source, target = (torch.from_numpy(pages).to(device, torch.int64) for pages in (sources, targets))
        for layer in pool:
            for tensor in layer:
                tensor[target] = tensor[source]


def _random(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    device = logits.device
    keys = torch.tensor([row_keys(draw.seed, draw.position) for draw in draws], device=device)
    temperature = torch.tensor([draw.temperature for draw in draws], dtype=torch.float32, device=device)[:, None]
    # The maximum comes off first: a tiny temperature must not overflow.
    scaled = (logits - logits.amax(-1, keepdim=True)) / temperature
    if not any(draw.filters for draw in draws):
        return (scaled + gumbel(keys, _ids(logits.shape[-1], device))).argmax(-1)
    values, ids = scaled.sort(dim=-1, descending=True, stable=True)
    values = values.masked_fill_(~_kept(values, draws), float("-inf"))
    best = (values + gumbel(keys, ids)).argmax(-1, keepdim=True)
    return ids.gather(-1, best).squeeze(-1)


def _kept(values: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Return which of the tempered logits (B, vocab), largest first, top_k, top_p and min_p leave over."""
    device, vocab = values.device, values.shape[-1]
    probabilities = values.softmax(-1, dtype=torch.float64)
    before = probabilities.cumsum(-1) - probabilities
    # A sum over the vocabulary may round to 1 early: top_p 1 must not cut what follows.
    top_p = [draw.top_p if draw.top_p < 1 else float("inf") for draw in draws]
    top_k = [draw.top_k if draw.top_k > 0 else vocab for draw in draws]
    min_p = [draw.min_p for draw in draws]
    kept = before < torch.tensor(top_p, dtype=torch.float64, device=device)[:, None]
    kept &= torch.arange(vocab, device=device) < torch.tensor(top_k, device=device)[:, None]
    kept &= probabilities >= probabilities[:, :1] * torch.tensor(min_p, dtype=torch.float64, device=device)[:, None]
    return kept


@lru_cache(maxsize=4)
def _ids(vocab: int, device: torch.device) -> Tensor:
    return torch.arange(vocab, device=device)
