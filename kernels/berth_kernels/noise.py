"""The randomness of sampling: a hash of (seed, position, token id), the same 32 bits in every backend and for ever.

A turn that moves to another worker must go on as if nothing had happened, so there is no generator whose state could be
lost. A token's noise depends neither on the rest of the batch nor on which other tokens a filter left over. `noise.h`
says the same in C, and the Triton kernels say it once more; tests hold all of them to the same bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from torch import Tensor

_MASK64: Final = (1 << 64) - 1
_MASK32: Final = (1 << 32) - 1


def row_keys(seed: int, position: int) -> tuple[int, int]:
    """Return the two 32-bit keys of the draw at `position` (in the session) under `seed` (63 bits)."""
    mixed = _mix64(_mix64(seed) ^ position)
    return mixed & _MASK32, mixed >> 32


def bits(keys: Tensor, ids: Tensor) -> Tensor:
    """Return 32 random bits a token, in int64 (B, V), for `keys` (B, 2) and token `ids` (V,) or (B, V), all int64."""
    return _mix32(_mix32(ids ^ keys[:, :1]) ^ keys[:, 1:])


def gumbel(keys: Tensor, ids: Tensor) -> Tensor:
    """Return standard Gumbel noise, float32 (B, V), of the tokens' `bits`.

    The bits are equal everywhere; the two logarithms may differ by a rounding from one device to another.
    """
    # 23 bits and a half: every value is exact in float32 and none is 0 or 1.
    uniform = bits(keys, ids).bitwise_right_shift_(9).to(torch.float32).add_(0.5).mul_(2.0**-23)
    return uniform.log_().neg_().log_().neg_()


def _mix32(x: Tensor) -> Tensor:
    """Return a bijective hash of 32-bit values held in int64 (`x` is overwritten).

    The multipliers of Ettinger's hash-prospector (16-15-15) lie below 2^31, so no product leaves int64: the result is
    the same on every device.
    """
    x ^= x >> 16
    x.mul_(0x21F0AAAD).bitwise_and_(_MASK32)
    x ^= x >> 15
    x.mul_(0x735A2D97).bitwise_and_(_MASK32)
    x ^= x >> 15
    return x


def _mix64(x: int) -> int:
    """Return SplitMix64's finaliser of `x` plus its increment."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK64
    return x ^ (x >> 31)
