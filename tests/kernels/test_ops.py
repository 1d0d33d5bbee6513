"""What is not attention, in every backend, against float64 written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from berth_kernels.interface import KVLayer

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}
"""Largest error on values of about 1 (bfloat16 rounds to 2 to the -8, twice where the models do)."""


def normal(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def norm_by_hand(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    x = x.double()
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight.double()


def check(found: Tensor, expected: Tensor) -> None:
    off = TOLERANCE[found.dtype]
    torch.testing.assert_close(found.double(), expected, atol=off, rtol=off)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(1, 64), (7, 1000), (3, 4, 16)])
def test_rms_norm_is_what_float64_says(ops, dtype, shape):
    x, weight = 3 * normal(*shape, dtype=dtype), normal(shape[-1], dtype=dtype, seed=1)
    found = ops.rms_norm(x, weight, 1e-5)
    assert found.dtype == dtype
    check(found, norm_by_hand(x, weight, 1e-5))


@pytest.mark.parametrize("eps", [1e-6, 0.5])
def test_rms_norm_of_small_values_is_held_by_eps(ops, eps):
    x, weight = 1e-3 * normal(2, 64), torch.ones(64)
    check(ops.rms_norm(x, weight, eps), norm_by_hand(x, weight, eps))


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_add_and_norm_are_the_two_of_them_bit_by_bit(ops, dtype):
    x, residual = (normal(5, 96, dtype=dtype, seed=seed) for seed in range(2))
    weight = normal(96, dtype=dtype, seed=2)
    summed = residual + x
    expected = ops.rms_norm(summed, weight, 1e-6)
    found = ops.add_rms_norm(x.clone(), residual, weight, 1e-6)
    assert torch.equal(residual, summed)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("heads", [1, 5])
def test_rotation_is_what_float64_says(ops, dtype, heads):
    dim, positions = 16, torch.tensor([0, 1, 77])
    angles = positions.double()[:, None] * 100.0 ** -torch.linspace(0, 1, dim // 2, dtype=torch.float64)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    # A slice of wider rows, as a model makes them.
    x = normal(3, heads + 2, dim, dtype=dtype)[:, :heads]
    low, high = x.double().chunk(2, -1)
    expected = torch.cat((low * cos - high * sin, high * cos + low * sin), -1)
    check(ops.rotate(x, torch.cat((cos, cos), -1).to(dtype), torch.cat((-sin, sin), -1).to(dtype)), expected)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_silu_mul_is_what_float64_says(ops, dtype):
    gate_up = normal(4, 2 * 33, dtype=dtype)
    gate, up = gate_up.double().chunk(2, -1)
    check(ops.silu_mul(gate_up), gate / (1 + (-gate).exp()) * up)


def a_pool(pages: int, layers: int, dtype: torch.dtype, shape: tuple[int, int, int]) -> list[KVLayer]:
    values = [normal(pages, *shape, dtype=dtype, seed=seed) for seed in range(2 * layers)]
    return [KVLayer(*values[at : at + 2]) for at in range(0, 2 * layers, 2)]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(1, 1, 3), (16, 2, 8), (64, 4, 64)])
def test_pages_are_copied_in_every_layer_and_nothing_else_is(ops, dtype, shape):
    pool = a_pool(9, 3, dtype, shape)
    before = [KVLayer(*(tensor.clone() for tensor in layer)) for layer in pool]
    ops.copy_pages(pool, np.array([8, 2, 2], np.int32), np.array([0, 5, 7], np.int32))
    origin = torch.tensor([8, 1, 2, 3, 4, 2, 6, 2, 8])
    for layer, old in zip(pool, before, strict=True):
        assert torch.equal(layer.key, old.key[origin])
        assert torch.equal(layer.value, old.value[origin])


def test_no_pages_are_copied_by_doing_nothing(ops):
    pool = a_pool(2, 1, torch.float32, (1, 1, 4))
    before = pool[0].key.clone()
    ops.copy_pages(pool, np.zeros(0, np.int32), np.zeros(0, np.int32))
    assert torch.equal(pool[0].key, before)


@pytest.mark.parametrize(
    ("sources", "targets", "message"),
    [
        ([0, 1], [2], "2 pages cannot be copied to 1"),
        ([0], [4], r"pages 0 … 4 of a pool that has 4"),
        ([-1], [2], r"pages -1 … 2 of a pool that has 4"),
        ([0, 1], [2, 2], "neither copied to twice nor copied from"),
        ([0, 1], [1, 2], "neither copied to twice nor copied from"),
    ],
)
def test_copies_that_depend_on_their_order_are_refused(ops, sources, targets, message):
    pool = a_pool(4, 1, torch.float32, (1, 1, 4))
    before = pool[0].key.clone()
    with pytest.raises(ValueError, match=message):
        ops.copy_pages(pool, np.array(sources, np.int32), np.array(targets, np.int32))
    assert torch.equal(pool[0].key, before)
