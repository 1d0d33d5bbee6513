"""The reference backend against attention written out by hand, over pages in any order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from berth_kernels import reference
from berth_kernels.interface import KVLayer
from berth_kernels.reference import ReferenceKernels

HEADS, KV_HEADS, DIM = 4, 2, 8
KERNELS = ReferenceKernels()


@dataclass
class Piece:
    """A segment and its whole KV, by position."""

    start: int
    end: int
    pages: np.ndarray
    key: torch.Tensor
    value: torch.Tensor
    kept: int = 0


def a_batch(spans: list[tuple[int, int]], page_size: int, seed: int) -> tuple[list[Piece], KVLayer]:
    """Return segments whose KV below `start` lies in the pool already; every other slot of the pool is garbage."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    counts = [-(-end // page_size) for _, end in spans]
    order = rng.permutation(sum(counts) + 3).astype(np.int32)
    layer = KVLayer(*(torch.full((len(order), page_size, KV_HEADS, DIM), 1e3) for _ in range(2)))
    pieces = []
    for (start, end), count in zip(spans, counts, strict=True):
        pages, order = order[:count], order[count:]
        if rng.random() < 0.5:
            pages = np.sort(pages)
        key, value = torch.randn(2, end, KV_HEADS, DIM)
        for position in range(start):
            page, at = pages[position // page_size], position % page_size
            layer.key[page, at], layer.value[page, at] = key[position], value[position]
        pieces.append(Piece(start, end, pages, key, value))
    return pieces, layer


def by_hand(piece: Piece, query: torch.Tensor, scale: float, window: int | None) -> torch.Tensor:
    out = torch.empty_like(query)
    for row, position in enumerate(range(piece.start, piece.end)):
        low = 0 if window is None else max(0, position - window + 1)
        for head in range(HEADS):
            of = head // (HEADS // KV_HEADS)
            weights = (piece.key[low : position + 1, of] @ query[row, head] * scale).softmax(0)
            out[row, head] = weights @ piece.value[low : position + 1, of]
    return out


def check(spans: list[tuple[int, int]], page_size: int, window: int | None, seed: int = 0) -> None:
    pieces, layer = a_batch(spans, page_size, seed)
    query = torch.randn(sum(end - start for start, end in spans), HEADS, DIM)
    plan = KERNELS.plan(pieces, page_size)
    plan.append(layer, *(torch.cat([getattr(p, name)[p.start :] for p in pieces]) for name in ("key", "value")))
    for _ in range(2):  # the second layer reuses the first one's index work
        out = plan.attend(layer, query, scale=0.3, window=window)
    rows = query.split([piece.end - piece.start for piece in pieces])
    expected = torch.cat([by_hand(piece, own, 0.3, window) for piece, own in zip(pieces, rows, strict=True)])
    torch.testing.assert_close(out, expected, atol=2e-5, rtol=1e-4)


spans_of = st.lists(st.tuples(st.integers(0, 20), st.sampled_from([1, 1, 1, 2, 7])), min_size=1, max_size=5)


@given(spans_of, st.sampled_from([1, 4, 16]), st.sampled_from([None, 1, 5, 100]), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_mixed_batches_attend_as_by_hand(spans, page_size, window, seed):
    check([(start, start + count) for start, count in spans], page_size, window, seed)


@pytest.mark.parametrize("window", [None, 6])
def test_long_chunks_attend_in_blocks(window, monkeypatch):
    monkeypatch.setattr(reference, "BLOCK_ROWS", 5)
    check([(0, 23), (9, 20), (4, 5)], 4, window)
    monkeypatch.setattr(reference, "BLOCK_ROWS", 512)
    monkeypatch.setattr(reference, "MASK_ELEMENTS", 64)
    check([(0, 23), (9, 20)], 4, window)


@pytest.mark.parametrize("window", [None, 6])
def test_long_decodes_are_read_in_place_beside_short_ones(window, monkeypatch):
    monkeypatch.setattr(reference, "GATHER_ELEMENTS", 10 * KV_HEADS * DIM)
    check([(30, 31), (3, 4), (19, 20), (5, 6), (0, 3)], 4, window)


@given(spans_of, st.sampled_from([1, 4, 16]), st.data())
@settings(max_examples=40, deadline=None)
def test_kept_positions_keep_their_kv_and_attend_to_it(spans, page_size, data):
    pieces, layer = a_batch([(start, start + count) for start, count in spans], page_size, seed=3)
    for piece in pieces:
        piece.kept = data.draw(st.integers(0, piece.end))
        for position in range(piece.start, piece.kept):
            page, at = piece.pages[position // page_size], position % page_size
            layer.key[page, at], layer.value[page, at] = piece.key[position], piece.value[position]
    query = torch.randn(sum(piece.end - piece.start for piece in pieces), HEADS, DIM)
    fresh = [[getattr(piece, name)[piece.start :].clone() for piece in pieces] for name in ("key", "value")]
    for rows in fresh:
        for piece, own in zip(pieces, rows, strict=True):
            own[: max(0, piece.kept - piece.start)] = 7e3  # what the pass computed for them, and must not be kept
    plan = KERNELS.plan(pieces, page_size)
    plan.append(layer, *(torch.cat(rows) for rows in fresh))
    out = plan.attend(layer, query, scale=0.3, window=None)
    own = query.split([piece.end - piece.start for piece in pieces])
    expected = torch.cat([by_hand(piece, rows, 0.3, None) for piece, rows in zip(pieces, own, strict=True)])
    torch.testing.assert_close(out, expected, atol=2e-5, rtol=1e-4)


def test_a_neighbours_nan_stays_its_own():
    pieces, layer = a_batch([(8, 9), (1, 2)], 4, seed=1)
    plan = KERNELS.plan(pieces, 4)
    plan.append(layer, *(torch.cat([getattr(p, name)[p.start :] for p in pieces]) for name in ("key", "value")))
    layer.value[torch.from_numpy(pieces[0].pages)] = float("nan")
    out = plan.attend(layer, torch.randn(2, HEADS, DIM), scale=1.0, window=None)
    assert out[0].isnan().all()
    assert out[1].isfinite().all()


@pytest.mark.parametrize(
    ("start", "end", "message"), [(3, 3, "start < end"), (-1, 2, "start < end"), (0, 9, "do not reach position 8")]
)
def test_impossible_segments_are_refused(start, end, message):
    piece = Piece(start, end, np.array([0, 1], np.int32), torch.empty(0), torch.empty(0))
    with pytest.raises(ValueError, match=message):
        KERNELS.plan([piece], 4)


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
