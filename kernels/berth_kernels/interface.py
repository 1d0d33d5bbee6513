"""What a model asks of its kernels: attention over a paged KV pool for a batch that mixes prefill chunks and decodes.

One `plan` a step does the index work for every layer, so that a layer itself touches tensors only. Backends differ in
how they read pages, never in what they compute: the reference backend is the definition.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


class KernelError(Exception):
    """A backend that does not exist, is not built, or cannot do what the model needs."""


class KVLayer(NamedTuple):
    """One layer's KV pool: `key` and `value`, each (num_pages, page_size, kv_heads, head_dim), contiguous."""

    key: Tensor
    value: Tensor


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


class Kernels(Protocol):
    """One backend."""

    name: str

    def plan(self, segments: Sequence[Segment], page_size: int) -> AttentionPlan:
        """Prepare a step. Raises ValueError for an empty segment or one whose pages do not reach its end."""

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return x · weightᵀ + bias for `x` (N, in), `weight` (out, in) and `bias` (out,), summed in float32: (N, out).

        All are of one dtype, the result too.
        """

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Return x / rms(x) * weight over the last dimension, computed in float32, in x's dtype."""

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Return rotary position embedding of `x` (N, heads, head_dim), halves rotated (GPT-NeoX order).

        `cos` is (N, 1, head_dim); `sin` the same with its first half negated already.
        """

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        """Return silu(gate) * up for `gate_up` (N, 2 * inner), gate first: (N, inner)."""


def check_segment(segment: Segment, page_size: int) -> None:
    """Raise ValueError for an empty segment and for one whose pages do not reach its end."""
    if not 0 <= segment.start < segment.end:
        raise ValueError(f"a segment needs 0 <= start < end, got {segment.start} and {segment.end}")
    if len(segment.pages) * page_size < segment.end:
        raise ValueError(f"{len(segment.pages)} pages of {page_size} tokens do not reach position {segment.end - 1}")
