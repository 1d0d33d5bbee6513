"""What the native backend promises beyond the interface: a query's result is the same bits whatever is beside it."""

from __future__ import annotations

import pytest
import torch

from berth_kernels.interface import KernelError
from berth_kernels.native import NativeKernels
from kernelkit.paged import Batch, Piece

LONG = [(1299, 1300)]
DTYPES = [torch.float32, torch.bfloat16]


def a_batch(spans, page_size=16, dtype=torch.float32, **shape) -> Batch:
    return Batch.random(spans, page_size, heads=8, kv_heads=2, dim=64, dtype=dtype, **shape)


def attend(kernels, batch: Batch, pieces: list[Piece], query: torch.Tensor, window: int | None = None) -> torch.Tensor:
    """Attend once all KV of the batch lies in the pool."""
    for piece in batch.pieces:
        batch.store(piece, 0, piece.end)
    return kernels.plan(pieces, batch.page_size).attend(batch.layer, query, scale=0.125, window=window)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [None, 700])
def test_alone_or_among_many_the_bits_are_the_same(native, dtype, window):
    batch = a_batch([(37 * n, 37 * n + 1) for n in range(30)] + LONG + [(40, 300)], dtype=dtype)
    among = attend(native, batch, batch.pieces, batch.query, window)
    row = 0
    for piece in batch.pieces:
        rows = slice(row, row + piece.rows)
        assert torch.equal(among[rows], attend(native, batch, [piece], batch.query[rows], window))
        row += piece.rows


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [None, 100])
@pytest.mark.parametrize("chunk", [3, 37, 128])
def test_a_prompt_in_chunks_gives_the_bits_of_the_whole(native, chunk, dtype, window):
    batch = a_batch([(500, 790)], dtype=dtype)
    [piece] = batch.pieces
    whole = attend(native, batch, [piece], batch.query, window)
    for start in range(piece.start, piece.end, chunk):
        end = min(piece.end, start + chunk)
        part = Piece(start, end, piece.pages, piece.key[:end], piece.value[:end])
        rows = slice(start - piece.start, end - piece.start)
        assert torch.equal(attend(native, batch, [part], batch.query[rows], window), whole[rows])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_number_of_threads_changes_no_bit(native, threads, dtype):
    batch = a_batch([*LONG, (0, 40), (100, 400)], dtype=dtype)
    one = attend(native, batch, batch.pieces, batch.query)
    for count in (2, 5):
        assert torch.equal(attend(threads(native, count), batch, batch.pieces, batch.query), one)


def test_page_sizes_change_no_bit(native):
    found = [
        attend(native, batch, batch.pieces, batch.query) for batch in (a_batch(LONG, size) for size in (1, 16, 256))
    ]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_but_its_own_positions_is_read(native, dtype):
    batch = a_batch([(3, 9), (80, 81), *LONG], dtype=dtype, garbage=float("nan"))
    found = batch.attend(native, scale=0.125, window=None)
    torch.testing.assert_close(found.double(), batch.by_hand(scale=0.125, window=None), atol=2e-2, rtol=0)


def test_what_would_lead_out_of_memory_is_refused(native):
    batch = a_batch([(3, 5)])
    plan = native.plan(batch.pieces, batch.page_size)
    with pytest.raises(ValueError, match="a plan for 2 rows was given 3"):
        plan.append(batch.layer, torch.zeros(3, 2, 64), torch.zeros(3, 2, 64))
    with pytest.raises(KernelError, match=r"not torch\.float16"):
        plan.attend(batch.layer, batch.query.half(), scale=1.0, window=None)
    with pytest.raises(KernelError, match="float32 or bfloat16 throughout"):
        plan.attend(batch.layer, batch.query.bfloat16(), scale=1.0, window=None)
    batch.pieces[0].pages[0] = 99
    plan = native.plan(batch.pieces, batch.page_size)
    with pytest.raises(IndexError, match="pages 99 … 99 of a pool that has 4"):
        plan.attend(batch.layer, batch.query, scale=1.0, window=None)


def test_an_unknown_instruction_set_is_answered_with_the_known_ones(native):
    del native  # present, then
    with pytest.raises(KernelError, match=r"no instruction set 'sse9' here: choose one of .*generic"):
        NativeKernels(path="sse9")
