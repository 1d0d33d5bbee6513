"""Copies of KV pages on the device: all layers, keys and values in one launch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
import triton
import triton.language as tl

from berth_kernels.ops import check_copies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from berth_kernels.interface import KVLayer

BLOCK: Final = 1024
"""Elements that a program copies."""


def copy_pages(pool: Sequence[KVLayer], sources: NDArray[np.int32], targets: NDArray[np.int32]) -> None:
    """See `Ops.copy_pages`. The pool's tensors are all of one shape and dtype."""
    first = pool[0].key
    check_copies(len(first), sources, targets)
    if not len(sources):
        return
    tensors = torch.tensor([tensor.data_ptr() for layer in pool for tensor in layer]).to(first.device)
    moves = torch.from_numpy(np.stack((sources, targets)).astype(np.int64)).to(first.device)
    size = first[0].numel()
    grid = (len(sources), len(tensors), triton.cdiv(size, BLOCK))
    copy_kernel[grid](tensors, moves, len(sources), size, WIDTH=8 * first.element_size(), BLOCK=BLOCK)


@triton.jit
def copy_kernel(tensors, moves, count, size, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    base = tl.load(tensors + tl.program_id(1))
    # Bits are copied, whatever they mean.
    if WIDTH == 32:
        pool = base.to(tl.pointer_type(tl.int32))
    elif WIDTH == 16:
        pool = base.to(tl.pointer_type(tl.int16))
    else:
        pool = base.to(tl.pointer_type(tl.int8))
    at = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    source = tl.load(moves + tl.program_id(0))
    target = tl.load(moves + count + tl.program_id(0))
    values = tl.load(pool + source * size + at, mask=at < size)
    tl.store(pool + target * size + at, values, mask=at < size)
