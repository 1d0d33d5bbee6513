"""The model that all engines serve: its sizes as announced, its numbers the same every time."""

from __future__ import annotations

import checkpoint
import torch

TINY = checkpoint.Shape(layers=2, hidden=64, inner=128, heads=4, kv_heads=2, vocab=600, positions=256)


def test_its_announced_sizes_are_those_of_its_tensors():
    made = checkpoint.weights(TINY)
    assert sum(tensor.numel() for tensor in made.values()) == TINY.parameters
    read = sum(tensor.nbytes for name, tensor in made.items() if "embed" not in name)
    assert read == TINY.read_bytes


def test_it_has_a_hundred_million_parameters():
    assert 99e6 < checkpoint.Shape().parameters < 102e6


def test_a_token_of_kv_is_keys_and_values_of_all_layers():
    assert TINY.kv_bytes == 2 * 2 * 2 * (2 * 16)


def test_it_is_written_once_and_the_same_every_time(tmp_path):
    checkpoint.write(tmp_path / "a", TINY)
    (tmp_path / "a" / "model.gguf").touch()
    checkpoint.write(tmp_path / "a", TINY)
    assert (tmp_path / "a" / "model.gguf").exists()  # nothing was written anew
    again = checkpoint.weights(TINY)
    assert all(torch.equal(tensor, again[name]) for name, tensor in checkpoint.weights(TINY).items())


def test_another_shape_replaces_it_and_what_was_made_of_it(tmp_path):
    checkpoint.write(tmp_path, checkpoint.Shape(1, 32, 64, 2, 1, 600, 256))
    (tmp_path / "model.gguf").touch()
    checkpoint.write(tmp_path, TINY)
    assert not (tmp_path / "model.gguf").exists()
    config = checkpoint.config(TINY)
    assert config["hidden_size"] == TINY.hidden


def test_every_id_has_a_text_of_its_own(tmp_path):
    from berth_worker.engine.tokenizer import load_tokenizer

    checkpoint.save_tokenizer(tmp_path, TINY.vocab)
    tokenizer = load_tokenizer(tmp_path)
    ids = [number for number in range(TINY.vocab) if not 128 <= number - 2 < 256]  # half a character is no text
    texts = [tokenizer.decode([number], skip_special_tokens=False) for number in ids]
    assert all(texts)
    assert len(set(texts)) == len(texts)
