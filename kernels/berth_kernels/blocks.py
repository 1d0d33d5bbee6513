"""How the reference backend reads KV: one sequence in place, or several short ones gathered side by side.

Pages that follow one another in the pool are read as one view; only scattered ones are copied. Decodes of short
sequences are gathered into one padded batch, since what that copies costs less than the calls it saves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from berth_kernels.interface import KVLayer


@dataclass(frozen=True, slots=True)
class Span:
    """Queries at positions `start … end - 1` over keys at positions `low … end - 1`, which lie in `pages`."""

    low: int
    start: int
    end: int
    pages: NDArray[np.int32]


class SequenceBlock:
    """Adjacent queries of one sequence."""

    def __init__(self, span: Span, rows: slice, page_size: int, mask: Tensor | None, *, causal: bool) -> None:
        """`mask` is (queries, keys), added to the scores; `causal` stands for the plain lower triangle."""
        self.rows = rows
        self._mask, self._causal = mask, causal
        used = span.pages[span.low // page_size : -(-span.end // page_size)]
        adjacent = bool((used[1:] - used[:-1] == 1).all())
        self._pages = None if adjacent else torch.from_numpy(used.astype(np.int64))
        offset = span.low % page_size
        first = offset if self._pages is not None else int(used[0]) * page_size + offset
        self._tokens = slice(first, first + span.end - span.low)

    def attend(self, layer: KVLayer, query: Tensor, scale: float, sinks: Tensor | None) -> Tensor:
        """KV heads are the batch dimension, so that the heads of a group share keys without a copy."""
        rows, heads, dim = query.shape
        key, value = (self._read(pool).transpose(0, 1).unsqueeze(1) for pool in layer)
        kv_heads = key.shape[0]
        group = heads // kv_heads
        if sinks is not None:
            grouped = query.view(rows, kv_heads, group, dim).permute(1, 2, 0, 3)
            mask = torch.ones(rows, key.shape[2]).tril().log() if self._causal else self._mask
            out = attention_with_sinks(grouped, key, value, mask, sinks=sinks.view(kv_heads, group, 1, 1), scale=scale)
            return out.permute(2, 0, 1, 3).reshape(rows, heads, dim)
        if rows == 1:
            # All heads of a group see the same keys: they are the rows of one query.
            out = functional.scaled_dot_product_attention(query.view(kv_heads, 1, group, dim), key, value, scale=scale)
            return out.reshape(1, heads, dim)
        grouped = query.view(rows, kv_heads, group, dim).permute(1, 2, 0, 3)
        shape = (kv_heads, group, key.shape[2], dim)
        out = functional.scaled_dot_product_attention(
            grouped, key.expand(shape), value.expand(shape), attn_mask=self._mask, is_causal=self._causal, scale=scale
        )
        return out.permute(2, 0, 1, 3).reshape(rows, heads, dim)

    def _read(self, pool: Tensor) -> Tensor:
        """Return keys or values (length, kv_heads, head_dim)."""
        if self._pages is not None:
            pool = pool.index_select(0, self._pages)
        return pool.flatten(0, 1)[self._tokens]


class DecodeBlock:
    """One query each of several sequences, their keys padded to the longest."""

    def __init__(self, spans: Sequence[Span], rows: slice | Tensor, page_size: int, dtype: torch.dtype) -> None:
        self.rows = rows
        used = [span.pages[span.low // page_size : -(-span.end // page_size)] for span in spans]
        table = np.empty((len(spans), max(map(len, used))), np.int64)
        for row, pages in zip(table, used, strict=True):
            # Padded with a page of its own: what another sequence wrote is never touched, not even with weight 0.
            row[: len(pages)], row[len(pages) :] = pages, pages[0]
        self._pages = torch.from_numpy(table.reshape(-1))
        # In a table's row, the span's keys begin within the first page and end before its padding.
        first = np.array([span.low % page_size for span in spans])[:, None]
        beyond = first + np.array([span.end - span.low for span in spans])[:, None]
        at = np.arange(table.shape[1] * page_size)
        hidden = torch.from_numpy((at < first) | (at >= beyond))
        self._mask = torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, float("-inf"))[:, None, None, :]

    def attend(self, layer: KVLayer, query: Tensor, scale: float, sinks: Tensor | None) -> Tensor:
        rows, heads, dim = query.shape
        key, value = (self._read(pool, rows).transpose(1, 2) for pool in layer)
        kv_heads = key.shape[1]
        group = heads // kv_heads
        grouped = query.reshape(rows, kv_heads, group, dim)
        if sinks is None:
            mask = self._mask.expand(rows, 1, group, -1)
            out = functional.scaled_dot_product_attention(grouped, key, value, attn_mask=mask, scale=scale)
        else:
            out = attention_with_sinks(
                grouped, key, value, self._mask, sinks=sinks.view(kv_heads, group, 1), scale=scale
            )
        return out.reshape(rows, heads, dim)

    def _read(self, pool: Tensor, rows: int) -> Tensor:
        """Return keys or values (rows, padded length, kv_heads, head_dim); what is masked is finite all the same."""
        return pool.index_select(0, self._pages).view(rows, -1, *pool.shape[2:])


def attention_with_sinks(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, sinks: Tensor, scale: float
) -> Tensor:
    """Return attention (…, queries, dim); `sinks` (…, queries or 1, 1) are logits of one key more, without a value."""
    scores = (query.float() @ key.float().transpose(-1, -2)) * scale
    if mask is not None:
        scores = scores + mask
    scores = torch.cat((scores, sinks.float().expand(*scores.shape[:-1], 1)), -1)
    return (scores.softmax(-1)[..., :-1] @ value.float()).to(query.dtype)


def causal_mask(span: Span, window: int | None, dtype: torch.dtype) -> Tensor:
    """Return 0 where a query of `span` sees a key and -inf elsewhere: (end - start, end - low)."""
    query = torch.arange(span.start, span.end)[:, None]
    key = torch.arange(span.low, span.end)[None, :]
    hidden = key > query
    if window is not None:
        hidden |= key <= query - window
    return torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, float("-inf"))
