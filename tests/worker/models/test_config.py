"""config.json, as transformers 4 and 5 write it; what is unknown is refused by name."""

from __future__ import annotations

import json

import pytest
import torch

from berth_worker.models.config import load_config, parse_config
from berth_worker.models.errors import ModelError
from berth_worker.models.rope import Rope, inverse_frequencies, rope_table
from modelkit import checkpoints

PLAIN = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}


def config(**fields):
    return parse_config({**PLAIN, **fields})


def test_a_sparse_config_gets_the_formats_defaults():
    found = config()
    assert (found.kv_heads, found.head_dim, found.tied, found.dtype) == (4, 16, False, "float32")
    assert found.rope == Rope("default", 10000.0)
    assert found.windows == (None,) * 4


@pytest.mark.parametrize(
    ("fields", "rope"),
    [
        ({"rope_theta": 5e5}, Rope("default", 5e5)),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, Rope("default", 5e5)),
        ({"rope_theta": 1e6, "rope_scaling": None}, Rope("default", 1e6)),
        ({"rope_theta": 1e6, "rope_scaling": {"type": "linear", "factor": 2.0}}, Rope("linear", 1e6, 2.0)),
        (
            {
                "rope_theta": 5e5,
                "rope_scaling": {
                    "rope_type": "llama3",
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 8192,
                },
            },
            Rope("llama3", 5e5, 8.0, 1.0, 4.0, 8192),
        ),
    ],
)
def test_rotary_parameters_of_either_transformers(fields, rope):
    assert config(**fields).rope == rope


@pytest.mark.parametrize(
    ("architecture", "fields", "windows"),
    [
        ("MistralForCausalLM", {"sliding_window": 8}, (8, 8, 8, 8)),
        ("MistralForCausalLM", {"sliding_window": None}, (None,) * 4),
        ("MistralForCausalLM", {}, (4096,) * 4),
        ("Qwen2ForCausalLM", {"sliding_window": 8}, (None,) * 4),
        (
            "Qwen2ForCausalLM",
            {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 3},
            (None, None, None, 8),
        ),
        (
            "Qwen3ForCausalLM",
            {
                "use_sliding_window": True,
                "sliding_window": 8,
                "layer_types": ["sliding_attention", "full_attention"] * 2,
            },
            (8, None, 8, None),
        ),
    ],
)
def test_attention_windows(architecture, fields, windows):
    assert config(architectures=[architecture], **fields).windows == windows


def test_what_the_architectures_differ_in():
    flags = {
        name: (found.qkv_bias, found.out_bias, found.mlp_bias, found.qk_norm)
        for name in ("Llama", "Mistral", "Qwen2", "Qwen3")
        for found in [config(architectures=[f"{name}ForCausalLM"], head_dim=16)]
    }
    assert flags == {
        "Llama": (False, False, False, False),
        "Mistral": (False, False, False, False),
        "Qwen2": (True, False, False, False),
        "Qwen3": (False, False, False, True),
    }
    biased = config(attention_bias=True, mlp_bias=True)
    assert (biased.qkv_bias, biased.out_bias, biased.mlp_bias) == (True, True, True)


def test_kv_bytes_count_keys_and_values_of_all_layers():
    assert config(num_key_value_heads=2).kv_bytes_per_token(2) == 2 * 4 * 2 * 16 * 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "architecture 'GPT2LMHeadModel' is not supported"),
        ({"architectures": None}, "architectures must name exactly one"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": "64"}, "hidden_size must be an integer"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be an integer of at least 1"),
        ({"vocab_size": True}, "vocab_size must be an integer"),
        ({"num_key_value_heads": 3}, "no multiple of num_key_value_heads 3"),
        ({"head_dim": 15}, "head_dim 15 is odd"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings must be true or false"),
        ({"dtype": "int8"}, "dtype 'int8'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope type 'yarn'"),
        ({"rope_scaling": {"rope_type": "linear"}}, "rope factor must be a positive number, got None"),
        ({"rope_scaling": "linear"}, "rope_parameters must be an object"),
        ({"rope_theta": -1}, "rope rope_theta must be a positive number"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        (
            {"architectures": ["Qwen2ForCausalLM"], "use_sliding_window": True, "layer_types": ["full_attention"]},
            "layer_types must list 4 layers",
        ),
    ],
)
def test_what_is_wrong_or_unknown_is_named(fields, message):
    with pytest.raises(ModelError, match=message):
        config(**fields)


def test_a_folder_without_a_readable_config_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"has no config\.json"):
        load_config(tmp_path)
    for content in (b"{", b"\xff", b"[1]", b"[" * 100_000):
        (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(ModelError, match=r"config\.json"):
            load_config(tmp_path)


@pytest.mark.parametrize("family", checkpoints.FAMILIES)
def test_frequencies_are_those_of_transformers(family, tiny_checkpoint):
    found = load_config(tiny_checkpoint(family))
    theirs = checkpoints.random_model(family).model.rotary_emb.inv_freq
    torch.testing.assert_close(inverse_frequencies(found.rope, found.head_dim), theirs, rtol=1e-6, atol=0)


def test_the_table_is_computed_in_float32_whatever_it_is_kept_in():
    exact = rope_table(Rope("default", 10000.0), 8, 3000, torch.float32)[0]
    assert torch.equal(rope_table(Rope("default", 10000.0), 8, 3000, torch.bfloat16)[0], exact.to(torch.bfloat16))


def test_transformers_5_writes_what_is_read(tiny_checkpoint):
    raw = json.loads((tiny_checkpoint("llama") / "config.json").read_text())
    assert "rope_parameters" in raw
    assert parse_config(raw).rope.kind == "llama3"
