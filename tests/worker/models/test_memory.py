"""Weights and KV lie side by side in memory that is mapped in large blocks."""

from __future__ import annotations

import mmap

import pytest
import torch

from berth_worker.models import memory
from berth_worker.models.memory import LINE_BYTES, Memory


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_are_zero_and_do_not_overlap(dtype, monkeypatch):
    monkeypatch.setattr(memory, "BLOCK_BYTES", 4096)
    memory_of = Memory(dtype)
    tensors = [memory_of.new(*shape) for shape in [(3,), (5, 7), (1, 1), (2000,), (40, 50), (0, 4), (9,)]]
    for number, tensor in enumerate(tensors, start=1):
        assert tensor.is_contiguous()
        assert tensor.dtype == dtype
        assert tensor.data_ptr() % LINE_BYTES == 0
        assert not tensor.any()
        tensor.fill_(number)
    for number, tensor in enumerate(tensors, start=1):
        assert (tensor == number).all()


def test_it_outlives_its_maker():
    tensor = Memory(torch.float32).new(1 << 20)
    assert tensor.sum() == 0


def test_memory_that_cannot_be_had_is_said(monkeypatch):
    def refuse(*_args, **_options):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refuse)
    with pytest.raises(MemoryError, match="cannot map 400000000 bytes: Cannot allocate memory"):
        Memory(torch.float32).new(100_000_000)
