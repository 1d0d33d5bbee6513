"""Writes the GGUF file of a Llama checkpoint with untied embeddings, matrices in bfloat16 as they are.

python gguf_file.py CHECKPOINT_FOLDER       CHECKPOINT_FOLDER/model.gguf
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

PARTS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "lm_head": "output",
}


def name_of(tensor: str) -> str:
    """`model.layers.3.mlp.up_proj.weight` -> `blk.3.ffn_up.weight`."""
    part = tensor.removesuffix(".weight").removeprefix("model.")
    if not part.startswith("layers."):
        return f"{PARTS[part]}.weight"
    _, layer, part = part.split(".", 2)
    return f"blk.{layer}.{PARTS[part]}.weight"


def paired(rows: np.ndarray, heads: int) -> np.ndarray:
    """Reorder the rows of a query or key projection: GGUF's Llama rotates neighbours, Hugging Face's the two halves."""
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(rows.shape)


def write(folder: Path) -> None:
    """Write `folder`/model.gguf. Raises ValueError for weights that are not stored in bfloat16."""
    import gguf
    from safetensors import deserialize

    config = json.loads((folder / "config.json").read_text())
    made = folder / "model.gguf.part"
    file = gguf.GGUFWriter(made, "llama")
    file.add_vocab_size(config["vocab_size"])
    file.add_context_length(config["max_position_embeddings"])
    file.add_embedding_length(config["hidden_size"])
    file.add_block_count(config["num_hidden_layers"])
    file.add_feed_forward_length(config["intermediate_size"])
    file.add_head_count(config["num_attention_heads"])
    file.add_head_count_kv(config["num_key_value_heads"])
    file.add_rope_dimension_count(config["head_dim"])
    file.add_rope_freq_base(config["rope_theta"])
    file.add_layer_norm_rms_eps(config["rms_norm_eps"])
    file.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    file.add_tokenizer_model("none")
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for tensor, stored in deserialize((folder / "model.safetensors").read_bytes()):
        if stored["dtype"] != "BF16":
            raise ValueError(f"{tensor} is stored as {stored['dtype']}, not as BF16")
        values = np.frombuffer(stored["data"], dtype=np.uint16).reshape(stored["shape"])
        if values.ndim == 1:
            # bfloat16 is the upper half of a float32.
            file.add_tensor(name_of(tensor), (values.astype(np.uint32) << 16).view(np.float32))
            continue
        part = tensor.split(".")[-2]
        values = paired(values, heads[part]) if part in heads else values
        as_bytes = np.ascontiguousarray(values).view(np.uint8)
        file.add_tensor(name_of(tensor), as_bytes, raw_dtype=gguf.GGMLQuantizationType.BF16)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
    made.rename(folder / "model.gguf")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
