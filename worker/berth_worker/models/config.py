"""A checkpoint's config.json, read once into the facts that the engine needs.

The four architectures differ in few ways: which projections have a bias, whether queries and keys are normalised, which
layers attend in a window. Everything that would change the mathematics and is not known here is refused by name:
a model that loads and quietly computes something else is worse than one that does not load.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from berth_worker.models.errors import ModelError
from berth_worker.models.rope import Rope, read_rope

if TYPE_CHECKING:
    from pathlib import Path

DTYPES: Final = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The shape of a decoder. Sizes are in elements, lengths in tokens."""

    architecture: str
    vocab_size: int
    hidden_size: int
    inner_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    max_positions: int
    norm_eps: float
    rope: Rope
    tied: bool
    """The output head is the embedding."""
    qkv_bias: bool
    out_bias: bool
    mlp_bias: bool
    qk_norm: bool
    """Queries and keys are RMS-normalised per head before the rotation."""
    windows: tuple[int | None, ...]
    """Each layer's attention window, itself included; None: all positions."""
    dtype: str
    """The dtype that the checkpoint says it is stored in."""

    def kv_bytes_per_token(self, itemsize: int) -> int:
        """Return the KV pool's bytes for one token over all layers at `itemsize` bytes an element."""
        return 2 * self.layers * self.kv_heads * self.head_dim * itemsize


def load_config(folder: Path) -> ModelConfig:
    """Read `folder`/config.json. Raises ModelError for what is missing, malformed or not supported."""
    return parse_config(read_json(folder / "config.json"))


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`; ModelError where there is none."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ModelError(f"{path.parent} has no {path.name}: not a Hugging Face checkpoint") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} must hold a JSON object, not {type(value).__name__}")
    return value


def parse_config(raw: dict[str, Any]) -> ModelConfig:
    """Turn a config.json, as transformers 4 or 5 writes it, into a ModelConfig."""
    architecture = _architecture(raw)
    fields = _Fields(raw)
    if raw.get("hidden_act", "silu") not in ("silu", "swish"):
        raise ModelError(f"config.json: hidden_act {raw['hidden_act']!r} is not supported (silu is)")
    if raw.get("quantization_config") is not None:
        raise ModelError("config.json: quantization_config: quantised checkpoints are not supported")
    hidden, layers = fields.count("hidden_size"), fields.count("num_hidden_layers")
    heads = fields.count("num_attention_heads")
    kv_heads = fields.count("num_key_value_heads", heads)
    head_dim = fields.count("head_dim", 128 if architecture == "Qwen3ForCausalLM" else hidden // heads)
    if heads % kv_heads:
        raise ModelError(f"config.json: num_attention_heads {heads} is no multiple of num_key_value_heads {kv_heads}")
    if head_dim % 2:
        raise ModelError(f"config.json: head_dim {head_dim} is odd: it cannot be rotated in halves")
    positions = fields.count("max_position_embeddings")
    attention_bias = fields.flag("attention_bias", default=False)
    return ModelConfig(
        architecture=architecture,
        vocab_size=fields.count("vocab_size"),
        hidden_size=hidden,
        inner_size=fields.count("intermediate_size"),
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        max_positions=positions,
        norm_eps=fields.number("rms_norm_eps", 1e-6),
        rope=read_rope(raw, positions),
        tied=fields.flag("tie_word_embeddings", default=False),
        qkv_bias=architecture == "Qwen2ForCausalLM" or (attention_bias and architecture != "MistralForCausalLM"),
        out_bias=attention_bias and architecture in ("LlamaForCausalLM", "Qwen3ForCausalLM"),
        mlp_bias=fields.flag("mlp_bias", default=False) and architecture == "LlamaForCausalLM",
        qk_norm=architecture == "Qwen3ForCausalLM",
        windows=_windows(architecture, fields, layers),
        dtype=_dtype(raw),
    )


ARCHITECTURES: Final = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")


def _architecture(raw: dict[str, Any]) -> str:
    known = ", ".join(ARCHITECTURES)
    named = raw.get("architectures")
    if not isinstance(named, list) or len(named) != 1:
        raise ModelError(f"config.json: architectures must name exactly one of {known}, got {named!r}")
    if named[0] not in ARCHITECTURES:
        raise ModelError(f"config.json: architecture {named[0]!r} is not supported (supported: {known})")
    return str(named[0])


def _dtype(raw: dict[str, Any]) -> str:
    named = raw.get("dtype") or raw.get("torch_dtype") or "float32"
    if named not in DTYPES:
        raise ModelError(f"config.json: dtype {named!r} is not supported (supported: {', '.join(DTYPES)})")
    return str(named)


def _windows(architecture: str, fields: _Fields, layers: int) -> tuple[int | None, ...]:
    raw = fields.raw
    if architecture == "LlamaForCausalLM":
        return (None,) * layers
    if architecture == "MistralForCausalLM":
        window = None if raw.get("sliding_window", 4096) is None else fields.count("sliding_window", 4096)
        return (window,) * layers
    if not fields.flag("use_sliding_window", default=False) or raw.get("sliding_window", 4096) is None:
        return (None,) * layers
    window = fields.count("sliding_window", 4096)
    kinds = raw.get("layer_types")
    if kinds is None:
        first = fields.count("max_window_layers", 28, least=0)
        kinds = ["full_attention" if layer < first else "sliding_attention" for layer in range(layers)]
    if not isinstance(kinds, list) or len(kinds) != layers:
        raise ModelError(f"config.json: layer_types must list {layers} layers")
    for kind in kinds:
        if kind not in ("full_attention", "sliding_attention"):
            raise ModelError(f"config.json: layer_types: {kind!r} is not supported")
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)


class _Fields:
    """Typed access to config.json that names the field at fault. Null counts as absent, as transformers has it."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw

    def count(self, name: str, default: int | None = None, least: int = 1) -> int:
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ModelError(f"config.json: {name} must be an integer of at least {least}, got {value!r}")
        return value

    def number(self, name: str, default: float) -> float:
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
            raise ModelError(f"config.json: {name} must be a number between 0 and 1, got {value!r}")
        return float(value)

    def flag(self, name: str, *, default: bool) -> bool:
        value = self._value(name, default)
        if not isinstance(value, bool):
            raise ModelError(f"config.json: {name} must be true or false, got {value!r}")
        return value

    def _value(self, name: str, default: object) -> Any:
        value = self.raw.get(name)
        if value is None:
            value = default
        if value is None:
            raise ModelError(f"config.json: {name} is missing")
        return value
