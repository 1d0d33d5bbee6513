"""The decoder that Llama, Qwen2, Qwen3 and Mistral share.

Plain tensors and functions rather than modules: a small model's step is mostly the cost of getting from one operation
to the next, and a fused layer has about twenty of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn.functional import embedding

from berth_kernels.interface import AttentionShape
from berth_worker.models.rope import rope_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from berth_kernels.interface import AttentionPlan, Kernels, KVLayer
    from berth_worker.models.config import ModelConfig
    from berth_worker.models.weights import LayerWeights, Weights


class _Step(NamedTuple):
    """What all layers of a step share; the rotary rows are those of the step's positions."""

    plan: AttentionPlan
    cos: Tensor
    sin: Tensor


class Decoder:
    """A model's forward pass over KV that lives elsewhere."""

    def __init__(self, config: ModelConfig, weights: Weights, kernels: Kernels, max_positions: int) -> None:
        """Serve positions below `max_positions`; dtype and device are those of the weights.

        Raises KernelError where `kernels` cannot serve such a model here.
        """
        dtype, device = weights.embedding.dtype, weights.embedding.device
        windows = frozenset(config.windows)
        kernels.prepare(AttentionShape(config.heads, config.kv_heads, config.head_dim, dtype, device, windows))
        self.config = config
        self._weights = weights
        self._kernels = kernels
        table = rope_table(config.rope, config.head_dim, max_positions, dtype)
        self._cos, self._sin = (each.to(device) for each in table)
        self._scale = config.head_dim**-0.5

    def forward(self, ids: Tensor, positions: Tensor, pool: Sequence[KVLayer], plan: AttentionPlan) -> Tensor:
        """Append the KV of `ids` (N,) at `positions` (N,), both int64; return the last layer's output (N, hidden)."""
        kernels, eps = self._kernels, self.config.norm_eps
        x = embedding(ids, self._weights.embedding)
        step = _Step(plan, self._cos[positions], self._sin[positions])
        out: Tensor | None = None
        for weights, kv, window in zip(self._weights.layers, pool, self.config.windows, strict=True):
            norm = weights.attention_norm
            # What a layer adds to the residual stream is added by the next norm: one pass over both.
            normed = kernels.rms_norm(x, norm, eps) if out is None else kernels.add_rms_norm(out, x, norm, eps)
            out = self._attention(normed, weights, kv, window, step)
            out = self._mlp(kernels.add_rms_norm(out, x, weights.mlp_norm, eps), weights)
        return x if out is None else x.add_(out)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the float32 logits (R, vocab) of the rows `hidden` (R, hidden) of `forward`'s result."""
        normed = self._kernels.rms_norm(hidden, self._weights.norm, self.config.norm_eps)
        return self._kernels.linear(normed, self._weights.head).float()

    def _attention(self, normed: Tensor, weights: LayerWeights, kv: KVLayer, window: int | None, step: _Step) -> Tensor:
        config, kernels = self.config, self._kernels
        heads, kv_heads = config.heads, config.kv_heads
        qkv = kernels.linear(normed, weights.qkv, weights.qkv_bias).view(len(normed), -1, config.head_dim)
        query_key, value = qkv[:, : heads + kv_heads], qkv[:, heads + kv_heads :]
        if weights.query_norm is not None and weights.key_norm is not None:
            query = kernels.rms_norm(qkv[:, :heads], weights.query_norm, config.norm_eps)
            key = kernels.rms_norm(qkv[:, heads : heads + kv_heads], weights.key_norm, config.norm_eps)
            query_key = torch.cat((query, key), 1)
        rotated = kernels.rotate(query_key, step.cos, step.sin)
        step.plan.append(kv, rotated[:, heads:], value)
        out = step.plan.attend(kv, rotated[:, :heads], scale=self._scale, window=window)
        return kernels.linear(out.flatten(1), weights.out, weights.out_bias)

    def _mlp(self, normed: Tensor, weights: LayerWeights) -> Tensor:
        kernels = self._kernels
        inner = kernels.silu_mul(kernels.linear(normed, weights.gate_up, weights.gate_up_bias))
        return kernels.linear(inner, weights.down, weights.down_bias)
