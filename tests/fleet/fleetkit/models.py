"""A random-weight Llama whose words depend on all of its history.

A model at its usual init repeats one token whatever came before, and would hide a lost history. This one is scaled so
that attention matters and the stream neither loops nor settles; equality of two streams then means equal histories.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

VOCAB = 264
"""The byte tokenizer's: 256 bytes and 8 specials."""


def write_random_llama(
    folder: Path,
    *,
    layers: int = 3,
    hidden: int = 64,
    heads: int = 4,
    kv_heads: int = 2,
    inner: int | None = None,
    vocab: int = VOCAB,
    seed: int = 0,
) -> Path:
    """Write a Hugging Face checkpoint (config, safetensors, tokenizer, chat template) in float32; returns `folder`.

    `inner` None: twice `hidden`. Ids beyond the tokenizer's have no text.
    """
    from berth_worker.builtin.tokenizer import BOS, END, PAD, save_tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": inner or 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": BOS,
        "eos_token_id": END,
        "pad_token_id": PAD,
        "torch_dtype": "float32",
        "dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    save_tokenizer(folder)
    save_file(_weights(config, np.random.default_rng(seed)), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _weights(config: dict[str, object], rng: np.random.Generator) -> dict[str, np.ndarray]:
    def dim(name: str) -> int:
        value = config[name]
        assert isinstance(value, int)
        return value

    def normal(rows: int, columns: int, gain: float) -> np.ndarray:
        drawn: np.ndarray = (rng.standard_normal((rows, columns)) * gain / np.sqrt(columns)).astype(np.float32)
        return drawn

    hidden, inner = dim("hidden_size"), dim("intermediate_size")
    kv, vocab = dim("num_key_value_heads") * dim("head_dim"), dim("vocab_size")
    ones = np.ones(hidden, dtype=np.float32)
    weights = {
        "model.embed_tokens.weight": rng.standard_normal((vocab, hidden)).astype(np.float32),
        "model.norm.weight": ones,
        "lm_head.weight": normal(vocab, hidden, 4.0),
    }
    for layer in range(dim("num_hidden_layers")):
        prefix = f"model.layers.{layer}"
        weights |= {
            f"{prefix}.input_layernorm.weight": ones,
            f"{prefix}.post_attention_layernorm.weight": ones,
            f"{prefix}.self_attn.q_proj.weight": normal(hidden, hidden, 1.5),
            f"{prefix}.self_attn.k_proj.weight": normal(kv, hidden, 1.5),
            f"{prefix}.self_attn.v_proj.weight": normal(kv, hidden, 1.5),
            f"{prefix}.self_attn.o_proj.weight": normal(hidden, hidden, 1.5),
            f"{prefix}.mlp.gate_proj.weight": normal(inner, hidden, 1.5),
            f"{prefix}.mlp.up_proj.weight": normal(inner, hidden, 1.5),
            f"{prefix}.mlp.down_proj.weight": normal(hidden, inner, 1.0),
        }
    return weights
