"""Which tensors a checkpoint must hold, and where each goes.

Query, key and value projections lie in one matrix here, gate and up in another: one product instead of five a layer.
The checkpoint's own tensors are parts of those, so the map is from a name on disk to a slice of memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from berth_worker.models.memory import Memory

if TYPE_CHECKING:
    from torch import Tensor

    from berth_worker.models.config import ModelConfig


@dataclass(slots=True)
class LayerWeights:
    """One decoder layer. Matrices are (out, in), as on disk."""

    attention_norm: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    query_norm: Tensor | None
    key_norm: Tensor | None
    out: Tensor
    out_bias: Tensor | None
    mlp_norm: Tensor
    gate_up: Tensor
    gate_up_bias: Tensor | None
    down: Tensor
    down_bias: Tensor | None


@dataclass(slots=True)
class Weights:
    """A whole model. `head` is `embedding` itself where the two are tied."""

    embedding: Tensor
    layers: list[LayerWeights]
    norm: Tensor
    head: Tensor


def allocate(config: ModelConfig, dtype: torch.dtype) -> Weights:
    """Return a model of zeros."""
    new = Memory(dtype).new
    hidden, inner, dim = config.hidden_size, config.inner_size, config.head_dim
    query, both = config.heads * dim, (config.heads + 2 * config.kv_heads) * dim
    layers = [
        LayerWeights(
            attention_norm=new(hidden),
            qkv=new(both, hidden),
            qkv_bias=new(both) if config.qkv_bias else None,
            query_norm=new(dim) if config.qk_norm else None,
            key_norm=new(dim) if config.qk_norm else None,
            out=new(hidden, query),
            out_bias=new(hidden) if config.out_bias else None,
            mlp_norm=new(hidden),
            gate_up=new(2 * inner, hidden),
            gate_up_bias=new(2 * inner) if config.mlp_bias else None,
            down=new(hidden, inner),
            down_bias=new(hidden) if config.mlp_bias else None,
        )
        for _ in range(config.layers)
    ]
    embedding = new(config.vocab_size, hidden)
    head = embedding if config.tied else new(config.vocab_size, hidden)
    return Weights(embedding, layers, new(hidden), head)


def places(config: ModelConfig, weights: Weights) -> dict[str, Tensor]:
    """Map each tensor name that the checkpoint must hold to the memory it fills."""
    named = {"model.embed_tokens.weight": weights.embedding, "model.norm.weight": weights.norm}
    if not config.tied:
        named["lm_head.weight"] = weights.head
    for index, layer in enumerate(weights.layers):
        named.update({f"model.layers.{index}.{name}": part for name, part in _layer_places(config, layer).items()})
    return named


def _layer_places(config: ModelConfig, layer: LayerWeights) -> dict[str, Tensor]:
    sizes = [config.heads * config.head_dim, config.kv_heads * config.head_dim, config.kv_heads * config.head_dim]
    named: dict[str, Tensor | None] = {
        "input_layernorm.weight": layer.attention_norm,
        "post_attention_layernorm.weight": layer.mlp_norm,
        "self_attn.q_norm.weight": layer.query_norm,
        "self_attn.k_norm.weight": layer.key_norm,
        "self_attn.o_proj.weight": layer.out,
        "self_attn.o_proj.bias": layer.out_bias,
        "mlp.down_proj.weight": layer.down,
        "mlp.down_proj.bias": layer.down_bias,
    }
    for suffix, qkv, gate_up in (("weight", layer.qkv, layer.gate_up), ("bias", layer.qkv_bias, layer.gate_up_bias)):
        if qkv is not None:
            for name, part in zip("qkv", torch.split(qkv, sizes), strict=True):
                named[f"self_attn.{name}_proj.{suffix}"] = part
        if gate_up is not None:
            for name, part in zip(("gate", "up"), gate_up.chunk(2), strict=True):
                named[f"mlp.{name}_proj.{suffix}"] = part
    return {name: part for name, part in named.items() if part is not None}
