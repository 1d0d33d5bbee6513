"""The reference backend's own ways: blocks of long chunks, decodes read in place, and what is not attention."""

from __future__ import annotations

import pytest
import torch

from berth_kernels import reference
from berth_kernels.reference import ReferenceKernels
from kernelkit.paged import Batch

KERNELS = ReferenceKernels()


def check(spans: list[tuple[int, int]], page_size: int, window: int | None) -> None:
    batch = Batch.random(spans, page_size)
    found = batch.attend(KERNELS, scale=0.3, window=window)
    torch.testing.assert_close(found.double(), batch.by_hand(scale=0.3, window=window), atol=1e-5, rtol=0)


@pytest.mark.parametrize("window", [None, 6])
def test_long_chunks_attend_in_blocks(window, monkeypatch):
    monkeypatch.setattr(reference, "BLOCK_ROWS", 5)
    check([(0, 23), (9, 20), (4, 5)], 4, window)
    monkeypatch.setattr(reference, "BLOCK_ROWS", 512)
    monkeypatch.setattr(reference, "MASK_ELEMENTS", 64)
    check([(0, 23), (9, 20)], 4, window)


@pytest.mark.parametrize("window", [None, 6])
def test_long_decodes_are_read_in_place_beside_short_ones(window, monkeypatch):
    monkeypatch.setattr(reference, "GATHER_ELEMENTS", 10 * 2 * 8)
    check([(30, 31), (3, 4), (19, 20), (5, 6), (0, 3)], 4, window)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm_scales_rows_to_the_weights(dtype):
    x, weight = torch.randn(3, 64), torch.rand(64)
    expected = x.to(dtype).float() * (x.to(dtype).float().pow(2).mean(-1, keepdim=True) + 1e-5).rsqrt() * weight
    found = KERNELS.rms_norm(x.to(dtype), weight.to(dtype), 1e-5)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, atol=1e-5 if dtype == torch.float32 else 2e-2, rtol=2e-2)


def test_rotation_turns_each_pair_by_its_angle():
    x = torch.randn(1, 1, 4)
    angles = torch.tensor([0.3, 1.1])
    cos, sin = torch.cat((angles.cos(),) * 2), torch.cat((-angles.sin(), angles.sin()))
    turned = KERNELS.rotate(x, cos.view(1, 1, 4), sin.view(1, 1, 4))[0, 0]
    pairs = torch.complex(x[0, 0, :2], x[0, 0, 2:]) * torch.polar(torch.ones(2), angles)
    torch.testing.assert_close(turned, torch.cat((pairs.real, pairs.imag)))


def test_silu_mul_takes_the_gate_first():
    gate, up = torch.randn(2, 3, 5)
    torch.testing.assert_close(KERNELS.silu_mul(torch.cat((gate, up), -1)), gate * gate.sigmoid() * up)
