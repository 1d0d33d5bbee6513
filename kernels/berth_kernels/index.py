"""A step's index work in numpy: where its tokens go in the pool, and its page tables in one piece."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from berth_kernels.interface import Segment


class PageTable(NamedTuple):
    """Segments in compressed rows, all int32: segment i has the rows `rows[i] … rows[i + 1] - 1` of the step.

    The last of its `pages[starts[i] : starts[i + 1]]` holds `last_length[i]` tokens, at least one; the others are full.
    """

    rows: NDArray[np.int32]
    starts: NDArray[np.int32]
    pages: NDArray[np.int32]
    last_length: NDArray[np.int32]


def page_table(segments: Sequence[Segment], page_size: int) -> PageTable:
    """Return the table of `segments`, whose KV reaches from position 0 to their ends."""
    ends = np.array([segment.end for segment in segments], np.int32)
    counts = -(-ends // page_size)
    new = ends - np.array([segment.start for segment in segments], np.int32)
    pages = [segment.pages[:count] for segment, count in zip(segments, counts, strict=True)]
    return PageTable(_sums(new), _sums(counts), np.concatenate(pages, dtype=np.int32), ends - (counts - 1) * page_size)


def slots(segments: Sequence[Segment], page_size: int) -> NDArray[np.int64]:
    """Return where the KV of each position that gets some goes: indices into the pool's tokens."""
    parts: list[NDArray[np.int64] | list[int]] = []
    for segment in segments:
        first = min(max(segment.start, segment.kept), segment.end)
        if segment.end - first == 1:
            page, at = divmod(first, page_size)
            parts.append([int(segment.pages[page]) * page_size + at])
        else:
            pages, within = np.divmod(np.arange(first, segment.end), page_size)
            parts.append(segment.pages[pages].astype(np.int64) * page_size + within)
    return np.concatenate(parts, dtype=np.int64)


def written(segments: Sequence[Segment]) -> NDArray[np.bool_] | None:
    """Return which rows' positions get the step's KV; None: all of them."""
    if all(segment.kept <= segment.start for segment in segments):
        return None
    return np.concatenate([np.arange(each.start, each.end) >= each.kept for each in segments])


def _sums(counts: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the sums of the first 0, 1, … all of `counts`."""
    return np.concatenate((np.zeros(1, np.int32), counts.cumsum(dtype=np.int32)))
