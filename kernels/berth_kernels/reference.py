"""The reference backend: plain torch on the CPU, the definition that other backends are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch.nn import functional

from berth_kernels.blocks import DecodeBlock, SequenceBlock, Span, causal_mask
from berth_kernels.interface import check_segment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from berth_kernels.interface import KVLayer, Segment

BLOCK_ROWS: Final = 512
"""Most queries that attend at once: a block skips the keys above its last row, a whole chunk would not."""
MASK_ELEMENTS: Final = 1 << 21
"""Most entries of one causal mask; a longer context attends in smaller blocks."""
GATHER_ELEMENTS: Final = 1 << 16
"""Up to so many elements of keys a decode is gathered with others; above, copying costs more than calling."""


class ReferencePlan:
    """A step's index work. Blocks are made for each attention window once, when the first layer asks."""

    def __init__(self, segments: Sequence[Segment], page_size: int) -> None:
        for segment in segments:
            check_segment(segment, page_size)
        self._segments = segments
        self._page_size = page_size
        self._slots = torch.from_numpy(_slots(segments, page_size))
        self._written = _written(segments)
        self._blocks: dict[int | None, list[SequenceBlock | DecodeBlock]] = {}

    def append(self, layer: KVLayer, key: Tensor, value: Tensor) -> None:
        if self._written is not None:
            key, value = key[self._written], value[self._written]
        layer.key.flatten(0, 1).index_copy_(0, self._slots, key)
        layer.value.flatten(0, 1).index_copy_(0, self._slots, value)

    def attend(
        self, layer: KVLayer, query: Tensor, *, scale: float, window: int | None, sinks: Tensor | None = None
    ) -> Tensor:
        blocks = self._blocks.get(window)
        if blocks is None:
            blocks = self._blocks[window] = list(self._split(layer.key, window))
        if len(blocks) == 1:
            return blocks[0].attend(layer, query, scale, sinks)
        out = torch.empty_like(query, memory_format=torch.contiguous_format)
        for block in blocks:
            out[block.rows] = block.attend(layer, query[block.rows], scale, sinks)
        return out

    def _split(self, pool: Tensor, window: int | None) -> Iterator[SequenceBlock | DecodeBlock]:
        """Yield blocks that cover every row once."""
        short = GATHER_ELEMENTS // (pool.shape[2] * pool.shape[3])
        gathered: list[tuple[int, Span]] = []
        row = 0
        for segment in self._segments:
            count = segment.end - segment.start
            low = _lowest(segment.start, window)
            if count == 1 and segment.end - low <= short and len(self._segments) > 1:
                gathered.append((row, Span(low, segment.start, segment.end, segment.pages)))
            else:
                yield from self._sequence(segment, row, window, pool.dtype)
            row += count
        if gathered:
            rows, spans = [row for row, _ in gathered], [span for _, span in gathered]
            whole = len(gathered) == row
            yield DecodeBlock(spans, slice(0, row) if whole else torch.tensor(rows), self._page_size, pool.dtype)

    def _sequence(self, segment: Segment, row: int, window: int | None, dtype: torch.dtype) -> Iterator[SequenceBlock]:
        step = min(BLOCK_ROWS, max(1, MASK_ELEMENTS // segment.end))
        for start in range(segment.start, segment.end, step):
            end = min(segment.end, start + step)
            span = Span(_lowest(start, window), start, end, segment.pages)
            rows = slice(row + start - segment.start, row + end - segment.start)
            # From position 0 on, the diagonal is the whole story unless the window cuts it.
            causal = start == 0 and (window is None or window >= end)
            mask = None if causal or end - start == 1 else causal_mask(span, window, dtype)
            yield SequenceBlock(span, rows, self._page_size, mask, causal=causal)


class ReferenceKernels:
    """Torch on the CPU."""

    name = "reference"

    def plan(self, segments: Sequence[Segment], page_size: int) -> ReferencePlan:
        return ReferencePlan(segments, page_size)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return functional.linear(x, weight, bias)

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        if x.dtype == torch.float32:
            return functional.rms_norm(x, (x.shape[-1],), weight, eps)
        # Rounded before the weight as well as after it: the order that these models were trained with.
        return weight * functional.rms_norm(x.float(), (x.shape[-1],), None, eps).to(x.dtype)

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return (x * cos).add_(x.roll(x.shape[-1] // 2, -1).mul_(sin))

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, -1)
        return functional.silu(gate).mul_(up)


def _lowest(position: int, window: int | None) -> int:
    """Return the first position that a query at `position` sees."""
    return 0 if window is None else max(0, position - window + 1)


def _first_written(segment: Segment) -> int:
    return min(max(segment.start, segment.kept), segment.end)


def _slots(segments: Sequence[Segment], page_size: int) -> NDArray[np.int64]:
    """Return where the KV of each position that gets some goes: indices into the pool's tokens."""
    parts: list[NDArray[np.int64] | list[int]] = []
    for segment in segments:
        first = _first_written(segment)
        if segment.end - first == 1:
            page, at = divmod(first, page_size)
            parts.append([int(segment.pages[page]) * page_size + at])
        else:
            pages, within = np.divmod(np.arange(first, segment.end), page_size)
            parts.append(segment.pages[pages].astype(np.int64) * page_size + within)
    return np.concatenate(parts, dtype=np.int64)


def _written(segments: Sequence[Segment]) -> Tensor | None:
    """Return which rows' positions get the step's KV; None: all of them."""
    if all(segment.kept <= segment.start for segment in segments):
        return None
    return torch.from_numpy(np.concatenate([np.arange(each.start, each.end) >= each.kept for each in segments]))
