"""Drawing on the device: one program a row, which reads its logits where they are and writes one token.

Nothing is sorted. What top_k, top_p and min_p keep is a beginning of the tokens in order of logit, so it has an end.
That is searched for, four bits at a time of the distance to the best logit, by weighing all tokens that lie nearer.
Sums are in float64 and in a fixed order, so that a row's token depends neither on the batch nor on who computes beside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
import triton
import triton.language as tl

from berth_kernels.noise import row_keys
from berth_kernels.ops import check_draws

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from berth_kernels.ops import Draw

MAX_BLOCK: Final = 1024
"""Logits that a program holds at once, sixteen times over while it searches."""


def sample(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """See `Ops.sample`."""
    check_draws(logits, draws)
    rows, vocab = logits.shape
    tokens = torch.empty(rows, dtype=torch.int64, device=logits.device)
    # One small copy to the device for all of it; float64 holds 32-bit keys exactly.
    table = torch.tensor([_row(draw, vocab) for draw in draws], dtype=torch.float64).to(logits.device)
    block = min(MAX_BLOCK, triton.next_power_of_2(vocab))
    if logits.stride(1) != 1:
        logits = logits.contiguous()
    sample_kernel[rows,](logits, logits.stride(0), table, tokens, vocab, BLOCK=block, num_warps=-(-block // 64))
    return tokens


def _row(draw: Draw, vocab: int) -> tuple[float, ...]:
    """Return what the kernel reads of a draw: filters that are off are those that keep everything."""
    low, high = row_keys(draw.seed, draw.position)
    return (
        low,
        high,
        0.0 if draw.greedy else draw.temperature,
        draw.top_k if 0 < draw.top_k < vocab else vocab,
        draw.top_p if draw.top_p < 1 else float("inf"),
        draw.min_p,
    )


@triton.jit
def sample_kernel(logits, logits_stride, table, tokens, vocab, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    logits += row.to(tl.int64) * logits_stride
    table += row * 6  # what _row returns
    low = tl.load(table).to(tl.int64).to(tl.uint32)
    high = tl.load(table + 1).to(tl.int64).to(tl.uint32)
    temperature = tl.load(table + 2).to(tl.float32)
    top_k = tl.load(table + 3).to(tl.int32)
    top_p = tl.load(table + 4)
    min_p = tl.load(table + 5)
    drawn = temperature > 0
    temperature = tl.where(drawn, temperature, 1.0)
    lanes = tl.arange(0, BLOCK)

    highest = tl.full((BLOCK,), float("-inf"), tl.float32)
    for start in range(0, vocab, BLOCK):
        ids = start + lanes
        highest = tl.maximum(highest, tl.load(logits + ids, mask=ids < vocab, other=float("-inf")))
    best = tl.max(highest, 0)

    # Tokens whose distance is below `end` are kept, of those at it a beginning. 0 is the best one's, 0x7F800000 -inf's.
    end = tl.full((), 0x7F800001, tl.uint32)
    limit = tl.full((), float("inf"), tl.float64)
    mass = tl.full((), 0, tl.float64)
    count = tl.full((), 0, tl.int32)
    each = tl.full((), 0, tl.float64)
    if drawn & ((top_k < vocab) | (top_p < 1) | (min_p > 0)):
        total, _ = nearer(logits, vocab, best, temperature, end + tl.arange(0, 1).to(tl.uint32), BLOCK)
        limit = tl.sum(total, 0) * top_p
        end = tl.full((), 0, tl.uint32)
        for digit in range(8):
            ends = end + (tl.arange(0, 16).to(tl.uint32) << (28 - 4 * digit))
            masses, counts = nearer(logits, vocab, best, temperature, ends, BLOCK)
            heavy = weight(tl.minimum(ends, 0x7F800000)) >= min_p
            inside = (masses < limit) & (counts < top_k) & heavy & (ends <= 0x7F800000)
            # From one end to the next less fits: what fits is a beginning, the present end at least.
            end = tl.max(tl.where(inside, ends, 0), 0)
            mass = tl.max(tl.where(inside, masses, 0), 0)
            count = tl.max(tl.where(inside, counts, 0), 0)
        each = weight(end)

    highest = tl.full((BLOCK,), float("-inf"), tl.float32)
    where = tl.full((BLOCK,), 0, tl.int32)
    tied = tl.full((), 0, tl.int32)
    for start in range(0, vocab, BLOCK):
        ids = start + lanes
        values = tempered(logits, ids, vocab, best, temperature)
        distance = distance_of(values)
        ties = (distance == end).to(tl.int32)
        before = tied + tl.cumsum(ties, 0) - ties
        tied += tl.sum(ties, 0)
        fits = (mass + before * each < limit) & (count + before < top_k)
        kept = (distance < end) | ((ties != 0) & fits)
        scores = tl.where(drawn, values + gumbel(low, high, ids), values)
        better = kept & (scores > highest)
        highest = tl.where(better, scores, highest)
        where = tl.where(better, ids, where)
    # Of equal scores the lowest id: within a lane it came first.
    token = tl.min(tl.where(highest == tl.max(highest, 0), where, vocab), 0)
    tl.store(tokens + row, token.to(tl.int64))


@triton.jit
def nearer(logits, vocab, best, temperature, ends, BLOCK: tl.constexpr):
    """Return, for each of `ends`, how much the tokens of less distance weigh (the best one: 1), and their number."""
    lanes = tl.arange(0, BLOCK)
    mass = tl.zeros((BLOCK, ends.shape[0]), tl.float64)
    count = tl.zeros((BLOCK, ends.shape[0]), tl.int32)
    for start in range(0, vocab, BLOCK):
        values = tempered(logits, start + lanes, vocab, best, temperature)
        inside = distance_of(values)[:, None] < ends[None, :]
        mass += tl.where(inside, tl.exp(values.to(tl.float64))[:, None], 0)
        count += inside.to(tl.int32)
    return tl.sum(mass, 0), tl.sum(count, 0)


@triton.jit
def tempered(logits, ids, vocab, best, temperature):
    values = tl.load(logits + ids, mask=ids < vocab, other=float("-inf"))
    return tl.div_rn(values - best, temperature)


@triton.jit
def distance_of(values):
    """Return the bits of -values: of floats without a sign, the greater one has the greater bits."""
    return tl.abs(values).to(tl.uint32, bitcast=True)


@triton.jit
def weight(distance):
    return tl.exp(-distance.to(tl.float32, bitcast=True).to(tl.float64))


@triton.jit
def gumbel(low, high, ids):
    uniform = ((noise_bits(low, high, ids) >> 9).to(tl.float32) + 0.5) * 1.1920928955078125e-07
    return -tl.log(-tl.log(uniform))


@triton.jit
def noise_bits(low, high, ids):
    """Return the 32 bits of noise.py."""
    return mix32(mix32(ids.to(tl.uint32) ^ low) ^ high)


@triton.jit
def mix32(x):
    x = (x ^ (x >> 16)) * 0x21F0AAAD
    x = (x ^ (x >> 15)) * 0x735A2D97
    return x ^ (x >> 15)
