"""What a model asks of its kernels: attention over a paged KV pool for a batch that mixes prefill chunks and decodes.

One `plan` a step does the index work for every layer, so that a layer itself touches tensors only. Backends differ in
how they read pages, never in what they compute: the reference backend is the definition.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from berth_kernels.ops import Ops

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor


class KernelError(Exception):
    """A backend that does not exist, is not built, or cannot do what the model needs."""


class KVLayer(NamedTuple):
    """One layer's KV pool: `key` and `value`, each (num_pages, page_size, kv_heads, head_dim), contiguous."""

    key: Tensor
    value: Tensor


class AttentionShape(NamedTuple):
    """What a model's attention is like, in all of its layers."""

    heads: int
    kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device
    windows: frozenset[int | None]
    """As `AttentionPlan.attend` takes them."""
    sinks: bool = False


class Segment(Protocol):
    """One sequence's share of a step: positions `start … end - 1` go through it, KV below lies in the pool."""

    @property
    def start(self) -> int: ...

    @property
    def end(self) -> int: ...

    @property
    def kept(self) -> int:
        """Positions below it keep the KV they have, even those from `start` on; 0: all get the step's."""

    @property
    def pages(self) -> NDArray[np.int32]:
        """Page ids; `pages[i]` holds positions `i * page_size …`. May be longer than needed."""


class AttentionPlan(Protocol):
    """A step's shape, valid for that step. Rows are the new tokens of all segments in order: N together."""

    def append(self, layer: KVLayer, key: Tensor, value: Tensor) -> None:
        """Write `key` and `value`, each (N, kv_heads, head_dim) in the pool's dtype, to the segments' pages.

        Rows of positions that a segment keeps are left out.
        """

    def attend(
        self, layer: KVLayer, query: Tensor, *, scale: float, window: int | None, sinks: Tensor | None = None
    ) -> Tensor:
        """Return causal attention of `query` (N, heads, head_dim) over its own segment's pages, in the same shape.

        A query at position p sees keys at max(0, p - window + 1) … p; `window` None: all from 0. `heads` is a multiple
        of the pool's kv_heads, query heads of one KV head side by side. The step's own KV must have been appended.
        `sinks` (heads,): a logit each head that takes its share of the softmax and has no value (as in gpt-oss).
        """


class Kernels(Ops, Protocol):
    """One backend: attention, and what else a step needs."""

    name: str

    def prepare(self, model: AttentionShape) -> None:
        """Get ready for a model, so that no step has to build or load anything.

        Raises KernelError for a model that the backend cannot serve here, and for what is missing, by its name.
        """

    def plan(self, segments: Sequence[Segment], page_size: int) -> AttentionPlan:
        """Prepare a step. Raises ValueError for an empty segment or one whose pages do not reach its end."""


def check_segment(segment: Segment, page_size: int) -> None:
    """Raise ValueError for an empty segment and for one whose pages do not reach its end."""
    if not 0 <= segment.start < segment.end:
        raise ValueError(f"a segment needs 0 <= start < end, got {segment.start} and {segment.end}")
    if len(segment.pages) * page_size < segment.end:
        raise ValueError(f"{len(segment.pages)} pages of {page_size} tokens do not reach position {segment.end - 1}")
