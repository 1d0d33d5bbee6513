"""Loading is strict: each tensor on disk has one place, and each place its tensor."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from berth_worker.models.config import load_config
from berth_worker.models.errors import ModelError
from berth_worker.models.loader import load_weights, weight_files
from modelkit import checkpoints

Q = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture
def folder(tiny_checkpoint, tmp_path):
    """A checkpoint of one's own."""
    return shutil.copytree(tiny_checkpoint("llama"), tmp_path / "checkpoint")


@pytest.fixture
def tensors(folder):
    return load_file(folder / "model.safetensors")


def load(folder, dtype=torch.float32):
    return load_weights(folder, load_config(folder), dtype)


def rewrite(folder, tensors) -> None:
    save_file(tensors, folder / "model.safetensors")


def test_projections_are_fused_in_order(folder, tensors):
    layer = load(folder).layers[1]
    parts = [tensors[f"model.layers.1.self_attn.{name}_proj.weight"] for name in "qkv"]
    assert torch.equal(layer.qkv, torch.cat(parts))
    parts = [tensors[f"model.layers.1.mlp.{name}_proj.weight"] for name in ("gate", "up")]
    assert torch.equal(layer.gate_up, torch.cat(parts))


def test_weights_come_in_the_dtype_asked_for(folder, tensors):
    rewrite(folder, {name: tensor.to(torch.float16) for name, tensor in tensors.items()})
    weights = load(folder, torch.bfloat16)
    assert torch.equal(weights.norm, tensors["model.norm.weight"].to(torch.float16).to(torch.bfloat16))


def test_shards_are_read_by_their_index(tmp_path):
    model = checkpoints.random_model("llama")
    checkpoints.save(model, tmp_path, max_shard_size="100KB")
    assert len(weight_files(tmp_path)) > 2
    assert torch.equal(load(tmp_path).norm, model.model.norm.weight)


def test_a_tied_head_is_the_embedding(tiny_checkpoint):
    weights = load(tiny_checkpoint("qwen2"))
    assert weights.head is weights.embedding


def test_a_tied_head_may_be_stored_if_it_is_the_embedding(tiny_checkpoint, tmp_path):
    folder = shutil.copytree(tiny_checkpoint("qwen2"), tmp_path / "checkpoint")
    tensors = load_file(folder / "model.safetensors")
    head = tensors["model.embed_tokens.weight"].clone()
    rewrite(folder, {**tensors, "lm_head.weight": head})
    load(folder)
    head[3, 3] += 1
    rewrite(folder, {**tensors, "lm_head.weight": head})
    with pytest.raises(ModelError, match=r"lm_head\.weight differs from model\.embed_tokens\.weight"):
        load(folder)


def test_stored_rotary_frequencies_are_passed_over(folder, tensors):
    rewrite(folder, {**tensors, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)})
    load(folder)


def test_a_missing_tensor_is_named(folder, tensors):
    del tensors[Q]
    rewrite(folder, tensors)
    with pytest.raises(ModelError, match=f"lacks tensor {Q}$"):
        load(folder)


def test_of_many_missing_tensors_the_first_is_named(folder, tensors):
    rewrite(folder, {"model.norm.weight": tensors["model.norm.weight"]})
    with pytest.raises(ModelError, match=r"lacks tensor lm_head\.weight \(and \d+ more\)"):
        load(folder)


def test_an_unexpected_tensor_is_named(folder, tensors):
    rewrite(folder, {**tensors, "model.layers.0.self_attn.q_proj.bias": torch.zeros(64)})
    with pytest.raises(ModelError, match=r"q_proj\.bias, which LlamaForCausalLM does not have"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensor: tensor[:-1].clone(), r"has shape \[63, 64\], the config calls for \[64, 64\]"),
        (lambda tensor: tensor.to(torch.int8), r"stored as torch\.int8"),
        (lambda tensor: tensor.index_fill(0, torch.tensor([5]), float("nan")), "not finite"),
        (lambda tensor: tensor.index_fill(0, torch.tensor([5]), float("inf")), "not finite"),
    ],
)
def test_an_odd_tensor_is_named(folder, tensors, change, message):
    rewrite(folder, {**tensors, Q: change(tensors[Q])})
    with pytest.raises(ModelError, match=f"tensor {Q} .*{message}"):
        load(folder)


def test_a_tensor_in_two_shards_is_named(folder, tensors):
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    save_file({Q: tensors[Q]}, folder / "b.safetensors")
    index = {"weight_map": {**dict.fromkeys(tensors, "a.safetensors"), Q: "b.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=rf"tensor {Q} is stored twice, the second time in b\.safetensors"):
        load(folder)


@pytest.mark.parametrize("name", ["gone.safetensors", "../model.safetensors", "/etc/passwd"])
def test_an_index_that_names_no_file_of_the_checkpoint_is_refused(folder, name):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {Q: name}}))
    with pytest.raises(ModelError, match=f"'{name}' is no file of the checkpoint"):
        load(folder)


@pytest.mark.parametrize("weight_map", [None, [], {}, {Q: 1}])
def test_an_index_without_a_map_is_refused(folder, weight_map):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ModelError, match="weight_map must map tensors to files"):
        load(folder)


def test_a_file_cut_short_is_named(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"cannot read .*model\.safetensors"):
        load(folder)


def test_a_folder_without_weights_is_named(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has neither model\.safetensors nor"):
        load(folder)
