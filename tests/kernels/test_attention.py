"""Every backend against attention in float64, over pages in any order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelkit.paged import Batch, Piece

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
"""Largest error on values drawn from a normal distribution. Of bfloat16 it is the rounding of weights and result."""

EDGES = [(0, 1), (0, 2), (5, 63), (63, 64), (64, 65), (480, 530), (511, 512), (512, 513), (513, 514), (1030, 1100)]
"""Around the ends of pages, and of the blocks and chunks of keys in which the native backend sums."""

spans_of = st.lists(st.tuples(st.integers(0, 90), st.sampled_from([1, 1, 1, 2, 7, 70])), min_size=1, max_size=5)


def check(batch: Batch, kernels, *, window: int | None = None, sinks: torch.Tensor | None = None) -> None:
    scale = batch.query.shape[2] ** -0.5
    found = batch.attend(kernels, scale=scale, window=window, sinks=sinks)
    assert found.dtype == batch.query.dtype
    expected = batch.by_hand(scale=scale, window=window, sinks=sinks)
    torch.testing.assert_close(found.double(), expected, atol=TOLERANCE[found.dtype], rtol=0)


@given(
    spans_of,
    st.sampled_from([1, 4, 16, 100, 256]),
    st.sampled_from([None, 1, 5, 64, 100]),
    st.booleans(),
    st.integers(0, 99),
)
@settings(max_examples=25)
def test_mixed_batches_attend_as_by_hand(kernels, spans, page_size, window, sinks, seed):  # noqa: PLR0917 - hypothesis's
    batch = Batch.random([(start, start + count) for start, count in spans], page_size, seed=seed)
    logits = 3 * torch.randn(batch.query.shape[1], generator=torch.Generator().manual_seed(seed)) if sinks else None
    check(batch, kernels, window=window, sinks=logits)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("dim", [64, 80, 96, 128, 256, 5, 33])
def test_head_dimensions(kernels, dim, dtype):
    check(Batch.random(EDGES, 16, dim=dim, dtype=dtype), kernels)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (3, 3), (8, 2), (7, 1), (40, 1), (130, 1)])
def test_groups_of_heads(kernels, heads, kv_heads, dtype):
    spans = [(0, 70), (64, 65), (600, 620)]
    check(Batch.random(spans, 16, heads=heads, kv_heads=kv_heads, dim=16, dtype=dtype), kernels)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("page_size", [1, 7, 16, 256])
@pytest.mark.parametrize("window", [None, 1, 64, 65, 600])
def test_pages_and_windows(kernels, page_size, window, dtype):
    spans = [(62, 66), (700, 701), (0, 130), (1060, 1130)]
    check(Batch.random(spans, page_size, dim=16, dtype=dtype), kernels, window=window)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("logit", [-1e4, 0.0, 20.0])
def test_sinks_take_their_share_of_the_weights(kernels, logit, dtype):
    batch = Batch.random([(0, 70), (1060, 1061)], 16, dim=32, dtype=dtype)
    sinks = torch.tensor([logit, logit + 1, 0.0, -1.0])
    check(batch, kernels, window=None, sinks=sinks)
    check(batch, kernels, window=50, sinks=sinks)


@pytest.mark.parametrize("scale", [1e-3, 30.0])
def test_scores_may_be_far_apart(kernels, scale):
    batch = Batch.random([(0, 200), (1000, 1001)], 16, dim=16)
    found = batch.attend(kernels, scale=scale, window=None)
    torch.testing.assert_close(found.double(), batch.by_hand(scale=scale, window=None), atol=2e-4, rtol=0)


@given(spans_of, st.sampled_from([1, 4, 16]), st.data())
@settings(max_examples=15)
def test_kept_positions_keep_their_kv_and_attend_to_it(kernels, spans, page_size, data):
    batch = Batch.random([(start, start + count) for start, count in spans], page_size, seed=3)
    fresh = batch.fresh()
    row = 0
    for piece in batch.pieces:
        piece.kept = data.draw(st.integers(0, piece.end))
        batch.store(piece, piece.start, piece.kept)
        for rows in fresh:
            # What the pass computed for them, and must not be kept.
            rows[row : row + max(0, piece.kept - piece.start)] = 7e3
        row += piece.rows
    plan = kernels.plan(batch.pieces, page_size)
    plan.append(batch.layer, *fresh)
    found = plan.attend(batch.layer, batch.query, scale=0.3, window=None)
    torch.testing.assert_close(found.double(), batch.by_hand(scale=0.3, window=None), atol=1e-5, rtol=0)


def test_appending_writes_its_own_slots_and_no_other(kernels):
    batch = Batch.random([(3, 9), (0, 1), (16, 40)], 4, dim=32, garbage=float("nan"))
    before = batch.layer.key.clone()
    kernels.plan(batch.pieces, 4).append(batch.layer, *batch.fresh())
    written = before.isnan().all(-1).all(-1) & batch.layer.key.isfinite().all(-1).all(-1)
    own = torch.zeros_like(written)
    for piece in batch.pieces:
        for position in range(piece.start, piece.end):
            page, at = piece.pages[position // 4], position % 4
            own[page, at] = True
            assert torch.equal(batch.layer.key[page, at], piece.key[position])
            assert torch.equal(batch.layer.value[page, at], piece.value[position])
    assert torch.equal(written, own)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_neighbours_nan_stays_its_own(kernels, dtype):
    batch = Batch.random([(8, 9), (1, 2)], 4, dtype=dtype)
    plan = kernels.plan(batch.pieces, 4)
    plan.append(batch.layer, *batch.fresh())
    batch.layer.value[torch.from_numpy(batch.pieces[0].pages)] = float("nan")
    out = plan.attend(batch.layer, batch.query, scale=1.0, window=None)
    assert out[0].isnan().all()
    assert out[1].isfinite().all()


def test_a_nan_in_a_key_is_not_hidden(kernels):
    batch = Batch.random([(8, 9)], 4)
    plan = kernels.plan(batch.pieces, 4)
    plan.append(batch.layer, *batch.fresh())
    batch.layer.key[int(batch.pieces[0].pages[1]), 2] = float("nan")
    assert plan.attend(batch.layer, batch.query, scale=1.0, window=None).isnan().all()


@pytest.mark.parametrize(
    ("start", "end", "message"), [(3, 3, "start < end"), (-1, 2, "start < end"), (0, 9, "do not reach position 8")]
)
def test_impossible_segments_are_refused(kernels, start, end, message):
    piece = Piece(start, end, np.array([0, 1], np.int32), torch.empty(0), torch.empty(0))
    with pytest.raises(ValueError, match=message):
        kernels.plan([piece], 4)
