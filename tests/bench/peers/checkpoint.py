"""The model that all engines serve: a random Llama of 100 million parameters, in bfloat16, the same for the same seed.

Its scales are those of `fleetkit.models`: attention matters and the stream neither loops nor settles, so that equal ids
mean equal sums. The tokenizer has a text for every id: who makes text of ids has it to do here too.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from itertools import islice, product
from pathlib import Path
from string import ascii_lowercase

import torch
from safetensors.torch import save_file

SEED = 20
DONE = "shape.json"
"""Written last: a folder without it was left half written."""


@dataclass(frozen=True)
class Shape:
    """A Llama without tied embeddings."""

    layers: int = 8
    hidden: int = 1024
    inner: int = 2560
    heads: int = 16
    kv_heads: int = 4
    vocab: int = 8192
    positions: int = 8192

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def layer_parameters(self) -> int:
        """Of all layers' matrices; the norms are a thousandth of it."""
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * self.kv_heads * self.head_dim
        return self.layers * (attention + 3 * self.hidden * self.inner)

    @property
    def parameters(self) -> int:
        return self.layer_parameters + 2 * self.vocab * self.hidden + (2 * self.layers + 1) * self.hidden

    @property
    def read_bytes(self) -> int:
        """Bytes of weights that one decode step must read, in bfloat16: all but the embedding, of which it is a row."""
        return 2 * (self.parameters - self.vocab * self.hidden)

    @property
    def kv_bytes(self) -> int:
        """Bytes of a token's keys and values, in 16 bits."""
        return 2 * 2 * self.layers * self.kv_heads * self.head_dim


def write(folder: Path, shape: Shape) -> None:
    """Write config, weights and tokenizer in Hugging Face's layout, unless this shape is there already."""
    if (folder / DONE).is_file() and json.loads((folder / DONE).read_text()) == asdict(shape):
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DONE).unlink(missing_ok=True)
    for stale in folder.glob("*.gguf"):
        stale.unlink()
    (folder / "config.json").write_text(json.dumps(config(shape), indent=1))
    save_tokenizer(folder, shape.vocab)
    save_file(weights(shape), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / DONE).write_text(json.dumps(asdict(shape)))


def config(shape: Shape) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": shape.positions,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "torch_dtype": "bfloat16",
        "dtype": "bfloat16",
    }


def weights(shape: Shape) -> dict[str, torch.Tensor]:
    """Return the tensors by their names in a Llama checkpoint, rows × columns = outputs × inputs."""
    generator = torch.Generator().manual_seed(SEED)

    def normal(rows: int, columns: int, gain: float) -> torch.Tensor:
        return (torch.randn(rows, columns, generator=generator) * gain / columns**0.5).bfloat16()

    ones = torch.ones(shape.hidden, dtype=torch.bfloat16)
    kv = shape.kv_heads * shape.head_dim
    made = {
        "model.embed_tokens.weight": normal(shape.vocab, shape.hidden, shape.hidden**0.5),
        "model.norm.weight": ones.clone(),
        "lm_head.weight": normal(shape.vocab, shape.hidden, 4.0),
    }
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}"
        made |= {
            f"{prefix}.input_layernorm.weight": ones.clone(),
            f"{prefix}.post_attention_layernorm.weight": ones.clone(),
            f"{prefix}.self_attn.q_proj.weight": normal(shape.hidden, shape.hidden, 1.5),
            f"{prefix}.self_attn.k_proj.weight": normal(kv, shape.hidden, 1.5),
            f"{prefix}.self_attn.v_proj.weight": normal(kv, shape.hidden, 1.5),
            f"{prefix}.self_attn.o_proj.weight": normal(shape.hidden, shape.hidden, 1.5),
            f"{prefix}.mlp.gate_proj.weight": normal(shape.inner, shape.hidden, 1.5),
            f"{prefix}.mlp.up_proj.weight": normal(shape.inner, shape.hidden, 1.5),
            f"{prefix}.mlp.down_proj.weight": normal(shape.hidden, shape.inner, 1.0),
        }
    return made


def save_tokenizer(folder: Path, vocab: int) -> None:
    """Write a tokenizer of `vocab` words: two specials, the bytes, and then made-up ones of three letters."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from berth_worker.builtin.tokenizer import byte_alphabet

    words = ["<s>", "</s>", *byte_alphabet()]
    words += ["".join(letters) for letters in islice(product(ascii_lowercase, repeat=3), vocab - len(words))]
    tokenizer = Tokenizer(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in words[:2]])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=words[0], eos_token=words[1])
    fast.save_pretrained(str(folder))
