"""Random-weight checkpoints of every architecture, with a byte-level tokenizer, so that a worker can serve them.

The weights are drawn large. With a usual init such a model repeats one token for ever, whatever attention does to it,
and a test would pass over almost any fault.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from berth_worker.builtin.tokenizer import save_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

VOCAB = 264

SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "pad_token_id": 261,
}

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@dataclass(frozen=True)
class Family:
    """Classes of transformers and what this family's tiny model has beyond the common shape."""

    config: type
    model: type[PreTrainedModel]
    fields: dict[str, Any] = field(default_factory=dict)


FAMILIES = {
    "llama": Family(LlamaConfig, LlamaForCausalLM, {"rope_parameters": LLAMA3_ROPE}),
    "llama-biased": Family(
        LlamaConfig, LlamaForCausalLM, {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}
    ),
    "qwen2": Family(Qwen2Config, Qwen2ForCausalLM, {"tie_word_embeddings": True}),
    "qwen2-window": Family(
        Qwen2Config, Qwen2ForCausalLM, {"use_sliding_window": True, "sliding_window": 20, "max_window_layers": 1}
    ),
    "qwen3": Family(Qwen3Config, Qwen3ForCausalLM, {"head_dim": 32}),
    "mistral": Family(MistralConfig, MistralForCausalLM, {"head_dim": 16, "sliding_window": 24}),
    "mistral-linear": Family(
        MistralConfig,
        MistralForCausalLM,
        {"sliding_window": None, "rope_parameters": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 2.0}},
    ),
}
"""By name; the four architectures go by their own."""

ARCHITECTURES = ("llama", "qwen2", "qwen3", "mistral")


def random_model(family: str, seed: int = 0, scale: float = 1.0, **fields: Any) -> PreTrainedModel:
    """Return a model in eval mode, float32. `scale` multiplies its matrices, `fields` override the config's."""
    kind = FAMILIES[family]
    torch.manual_seed(seed)
    model = kind.model(kind.config(**{**SHAPE, **kind.fields, **fields})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 and name.endswith("norm.weight"):
                parameter.uniform_(0.5, 1.5)
            elif parameter.ndim == 1:
                parameter.normal_(std=0.3)
            elif "embed" in name or "lm_head" in name:
                parameter.normal_(std=0.15 * scale)
            else:
                parameter.normal_(std=1.2 * scale * parameter.shape[1] ** -0.5)
    return model


def save(model: PreTrainedModel, folder: Path, *, dtype: torch.dtype = torch.float32, **options: Any) -> Path:
    """Write `model` and the tokenizer into `folder` as transformers does; `options` go to save_pretrained."""
    model.to(dtype).save_pretrained(folder, **options)
    save_tokenizer(folder)
    return folder


def edit_json(path: Path, **fields: Any) -> None:
    """Change fields of a JSON file; None removes one."""
    content = json.loads(path.read_text())
    for name, value in fields.items():
        content[name] = value
        if value is None:
            del content[name]
    path.write_text(json.dumps(content))
