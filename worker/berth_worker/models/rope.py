"""Rotary position embedding: its parameters as checkpoints write them, and the table of cosines and sines.

RoFormer (arXiv 2104.09864); `llama3` scaling as in Llama 3.1's reference code. transformers 5 writes `rope_parameters`,
earlier versions `rope_theta` and `rope_scaling`: both are read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from berth_worker.models.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Rope:
    """`kind` is default, linear or llama3; the last three fields are llama3's."""

    kind: str
    theta: float
    factor: float = 1.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_positions: int = 0


def read_rope(raw: dict[str, Any], max_positions: int) -> Rope:
    """Read the rotary parameters of a config.json. Raises ModelError for a type that is not known."""
    found = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(found, dict):
        raise ModelError(f"config.json: rope_parameters must be an object, got {found!r}")
    kind = found.get("rope_type", found.get("type", "default"))
    partial = found.get("partial_rotary_factor", raw.get("partial_rotary_factor"))
    if partial is not None and partial != 1:
        raise ModelError(f"config.json: partial_rotary_factor {partial!r} is not supported")
    if kind not in ("default", "linear", "llama3"):
        raise ModelError(f"config.json: rope type {kind!r} is not supported (supported: default, linear, llama3)")
    theta = found.get("rope_theta", raw.get("rope_theta", 10000.0))
    rope = Rope(kind=kind, theta=_positive("rope_theta", theta))
    if kind == "default":
        return rope
    factor = _positive("factor", found.get("factor"))
    if kind == "linear":
        return Rope(kind, rope.theta, factor)
    low = _positive("low_freq_factor", found.get("low_freq_factor"))
    high = _positive("high_freq_factor", found.get("high_freq_factor"))
    if high <= low:
        raise ModelError(f"config.json: rope high_freq_factor {high} must be above low_freq_factor {low}")
    name = "original_max_position_embeddings"
    original = _positive(name, found.get(name, max_positions))
    return Rope(kind, rope.theta, factor, low, high, int(original))


def _positive(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ModelError(f"config.json: rope {name} must be a positive number, got {value!r}")
    return float(value)


def inverse_frequencies(rope: Rope, head_dim: int) -> Tensor:
    """Return the angle per position of each pair of dimensions: float32 (head_dim / 2,)."""
    plain = 1.0 / (rope.theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim))
    if rope.kind == "default":
        return plain
    if rope.kind == "linear":
        return plain / rope.factor
    wavelength = 2 * math.pi / plain
    low, high = rope.low_frequency_factor, rope.high_frequency_factor
    # 0 where a wave is longer than the original context allows, 1 where it is short, a ramp between.
    share = ((rope.original_positions / wavelength - low) / (high - low)).clamp(0, 1)
    return (1 - share) * plain / rope.factor + share * plain


def rope_table(rope: Rope, head_dim: int, positions: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return cos and sin for 0 … positions - 1, each (positions, 1, head_dim), the first half of sin negated.

    Angles are computed in float32 whatever `dtype` is: at position 100,000 bfloat16 has no fraction left.
    """
    angles = torch.arange(positions, dtype=torch.float32)[:, None] * inverse_frequencies(rope, head_dim)
    cos, sin = angles.cos(), angles.sin()
    both = torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)
    return both[0].to(dtype)[:, None, :], both[1].to(dtype)[:, None, :]
