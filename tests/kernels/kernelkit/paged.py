"""Batches over a paged pool full of garbage, and attention written out in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from berth_kernels.interface import Kernels, KVLayer


@dataclass
class Piece:
    """A segment and its whole KV, by position."""

    start: int
    end: int
    pages: np.ndarray
    key: torch.Tensor
    value: torch.Tensor
    kept: int = 0

    @property
    def rows(self) -> int:
        return self.end - self.start


@dataclass
class Batch:
    """Segments whose KV below `start` lies in the pool; what belongs to none of them is `garbage` there."""

    pieces: list[Piece]
    layer: KVLayer
    query: torch.Tensor
    page_size: int

    @classmethod
    def random(
        cls,
        spans: list[tuple[int, int]],
        page_size: int,
        *,
        heads: int = 4,
        kv_heads: int = 2,
        dim: int = 8,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        garbage: float = 1e3,
    ) -> Batch:
        rng, draw = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        counts = [-(-end // page_size) for _, end in spans]
        order = rng.permutation(sum(counts) + 3).astype(np.int32)
        shape = (len(order), page_size, kv_heads, dim)
        layer = KVLayer(*(torch.full(shape, garbage, dtype=dtype) for _ in range(2)))
        pieces = []
        for (start, end), count in zip(spans, counts, strict=True):
            pages, order = order[:count], order[count:]
            if rng.random() < 0.5:
                pages = np.sort(pages)
            key, value = torch.randn(2, end, kv_heads, dim, generator=draw).to(dtype)
            pieces.append(Piece(start, end, pages, key, value))
        rows = sum(piece.rows for piece in pieces)
        # Rows as a model makes them: a slice of wider ones.
        query = torch.randn(rows, heads + 2, dim, generator=draw).to(dtype)[:, :heads]
        batch = cls(pieces, layer, query, page_size)
        for piece in pieces:
            batch.store(piece, 0, piece.start)
        return batch

    def store(self, piece: Piece, start: int, end: int) -> None:
        """Put KV of these positions where it belongs."""
        position = np.arange(start, end)
        slots = torch.from_numpy(piece.pages[position // self.page_size] * self.page_size + position % self.page_size)
        for pool, rows in zip(self.layer, (piece.key, piece.value), strict=True):
            pool.flatten(0, 1)[slots] = rows[start:end]

    def fresh(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The step's keys and values."""
        parts = [(piece.key[piece.start :], piece.value[piece.start :]) for piece in self.pieces]
        key, value = (torch.cat(own) for own in zip(*parts, strict=True))
        return key, value

    def attend(self, kernels: Kernels, **options) -> torch.Tensor:
        """Append and attend, twice: the second layer of a step reuses the first one's index work."""
        plan = kernels.plan(self.pieces, self.page_size)
        plan.append(self.layer, *self.fresh())
        first, second = (plan.attend(self.layer, self.query, **options) for _ in range(2))
        assert torch.equal(first, second)
        return first

    def by_hand(self, *, scale: float, window: int | None, sinks: torch.Tensor | None = None) -> torch.Tensor:
        """Return what attention should be, in float64."""
        queries = self.query.double().split([piece.rows for piece in self.pieces])
        return torch.cat([_by_hand(*own, scale, window, sinks) for own in zip(self.pieces, queries, strict=True)])


def _by_hand(
    piece: Piece, query: torch.Tensor, scale: float, window: int | None, sinks: torch.Tensor | None
) -> torch.Tensor:
    group = query.shape[1] // piece.key.shape[1]
    key, value = (each.double().repeat_interleave(group, 1) for each in (piece.key, piece.value))
    scores = torch.einsum("qhd,khd->hqk", query, key) * scale
    own, others = torch.arange(piece.start, piece.end)[:, None], torch.arange(piece.end)[None, :]
    hidden = others > own
    if window is not None:
        hidden |= others <= own - window
    scores.masked_fill_(hidden, float("-inf"))
    if sinks is not None:
        scores = torch.cat((scores, sinks.double()[:, None, None].expand(*scores.shape[:2], 1)), -1)
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1)[..., : piece.end], value)
