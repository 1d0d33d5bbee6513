"""The reference backend's own ways: blocks of long chunks, and decodes read in place."""

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
