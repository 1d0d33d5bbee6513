"""What a model's step needs besides attention: linear layers, norms, rotation, activation, sampling, copies of pages.

`ops_reference.py` is the definition; other backends are held to it by the same tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from berth_kernels.interface import KVLayer


class Draw(NamedTuple):
    """How the token of one row is chosen. `seed` (63 bits) and the token's `position` are the only randomness.

    temperature comes first; then top_k, top_p and min_p, each on the full tempered distribution, as SGLang has it.
    """

    seed: int
    position: int
    temperature: float = 1.0
    """0: the most likely token, the lowest id of several."""
    top_k: int = -1
    """Below 1: all of the vocabulary."""
    top_p: float = 1.0
    min_p: float = 0.0

    @property
    def greedy(self) -> bool:
        """Whether there is nothing to draw."""
        return self.temperature == 0 or self.top_k == 1

    @property
    def filters(self) -> bool:
        """Whether a part of the vocabulary may be cut off."""
        return self.top_p < 1 or self.top_k > 0 or self.min_p > 0


class Ops(Protocol):
    """One backend's share of these. Tensors of one call lie on one device, the results too."""

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return x · weightᵀ + bias for `x` (N, in), `weight` (out, in) and `bias` (out,), summed in float32: (N, out).

        All are of one dtype, the result too.
        """

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Return x / rms(x) * weight over the last dimension, computed in float32, in x's dtype.

        RMSNorm (arXiv 1910.07467).
        """

    def add_rms_norm(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Add `x` to `residual` (both (N, hidden)) in place; return the sum's `rms_norm`. `x` may be overwritten."""

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Return rotary position embedding of `x` (N, heads, head_dim), halves rotated (GPT-NeoX order).

        `cos` is (N, 1, head_dim); `sin` the same with its first half negated already. RoFormer (arXiv 2104.09864).
        """

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        """Return silu(gate) * up for `gate_up` (N, 2 * inner), gate first: (N, inner)."""

    def sample(self, logits: Tensor, draws: Sequence[Draw]) -> Tensor:
        """Return a token a row of `logits` (B, vocab), float32: int64 (B,). `logits` is left as it is.

        A row's token depends on its logits and its draw alone. What is kept is a beginning of the tokens in order of
        logit, the lower id first where they tie: of `top_k`; while those before it have less than `top_p`; of at least
        `min_p` times the best one's probability. Of these the argmax of tempered logit + Gumbel noise is drawn (see
        noise.py), which is a draw from their softmax. Raises ValueError unless there is a draw for each row.
        """

    def copy_pages(self, pool: Sequence[KVLayer], sources: NDArray[np.int32], targets: NDArray[np.int32]) -> None:
        """Copy the page `sources[i]` over the page `targets[i]`, keys and values of every layer of `pool`.

        Raises ValueError, copying nothing, unless there are as many sources as targets, all of them pages of the pool,
        and no target is named twice or a source too.
        """


def check_draws(logits: Tensor, draws: Sequence[Draw]) -> None:
    """Raise ValueError unless there is a draw for each row of `logits`."""
    if len(logits) != len(draws):
        raise ValueError(f"{len(logits)} rows of logits and {len(draws)} draws")


def check_copies(pages: int, sources: NDArray[np.int32], targets: NDArray[np.int32]) -> None:
    """Raise ValueError unless `sources` can be copied over `targets` in any order, in a pool of so many `pages`."""
    if len(sources) != len(targets):
        raise ValueError(f"{len(sources)} pages cannot be copied to {len(targets)}")
    both = np.concatenate((sources, targets))
    if len(both) and not 0 <= both.min() <= both.max() < pages:
        raise ValueError(f"pages {both.min()} … {both.max()} of a pool that has {pages}")
    if len(np.unique(targets)) < len(targets) or np.intersect1d(sources, targets).size:
        raise ValueError("a page that is copied to may be neither copied to twice nor copied from")
