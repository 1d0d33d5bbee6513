"""Attention alone: what the native backend gets of the memory's speed when it decodes, and of torch's when it prefills.

    python tests/bench/attention.py

Each row is measured in interleaved runs of everything in it, so that the machine's moods hit all alike; ratios are
taken within a run. The read ceiling is a sum over as many bytes as the decode reads, by torch with the same threads.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "fleet")]

from berth_kernels.interface import KVLayer  # noqa: E402 - importable only from here on
from berth_kernels.native import NativeKernels  # noqa: E402
from berth_kernels.reference import ReferenceKernels  # noqa: E402
from fleetkit.table import table  # noqa: E402

HEADS, KV_HEADS, DIM, PAGE = 32, 8, 128, 16
SCALE = DIM**-0.5
DECODES = ((8, 2048), (8, 8192), (1, 32768))
"""Sequences, positions each."""
PREFILLS = ((512, 512), (512, 2048), (512, 8192), (2048, 2048))
"""Queries at the end of so many positions."""
RUNS, WITHIN_S = 5, 0.25
"""Runs of a row, and seconds in which a run repeats an act to take its fastest time."""


@dataclass(frozen=True)
class Piece:
    start: int
    end: int
    pages: np.ndarray
    kept: int = 0


async def measure() -> dict[str, Any]:
    """Return a row a shape: milliseconds of each run."""
    threads = torch.get_num_threads()
    native = NativeKernels()
    decodes = [{"batch": batch, "length": length, **_decode(native, batch, length)} for batch, length in DECODES]
    prefills = [
        {"queries": queries, "length": length, **_prefill(native, queries, length)} for queries, length in PREFILLS
    ]
    return {"threads": threads, "path": native.path, "decodes": decodes, "prefills": prefills}


@torch.inference_mode()
def _decode(native: NativeKernels, batch: int, length: int) -> dict[str, Any]:
    print(f"  decode {batch} x {length}", flush=True)
    pieces, layer = _pool(batch, length, queries=1)
    query = torch.randn(batch, HEADS, DIM, dtype=torch.bfloat16)
    read = 2 * batch * length * KV_HEADS * DIM * 2
    flat = torch.ones(read // 4)
    acts: dict[str, Callable[[], Any]] = {"read": flat.sum}
    for kernels in (native, ReferenceKernels()):
        plan = kernels.plan(pieces, PAGE)
        acts[kernels.name] = lambda plan=plan: plan.attend(layer, query, scale=SCALE, window=None)
    return {"read_bytes": read, "ms": _interleaved(acts)}


@torch.inference_mode()
def _prefill(native: NativeKernels, queries: int, length: int) -> dict[str, Any]:
    print(f"  prefill {queries} of {length}", flush=True)
    pieces, layer = _pool(1, length, queries)
    query = torch.randn(queries, HEADS, DIM, dtype=torch.bfloat16)
    plan = native.plan(pieces, PAGE)
    q = query.transpose(0, 1)[None].contiguous()
    shape = (1, KV_HEADS, HEADS // KV_HEADS, length, DIM)
    key, value = (
        torch.randn(1, KV_HEADS, 1, length, DIM, dtype=torch.bfloat16).expand(shape).reshape(1, HEADS, length, DIM)
        for _ in range(2)
    )
    whole = queries == length
    mask = (
        None
        if whole
        else torch.zeros(queries, length, dtype=q.dtype).masked_fill_(
            torch.ones(queries, length).tril(length - queries) == 0, float("-inf")
        )
    )
    acts = {
        "native": lambda: plan.attend(layer, query, scale=SCALE, window=None),
        "sdpa": lambda: functional.scaled_dot_product_attention(
            q, key, value, attn_mask=mask, is_causal=whole, scale=SCALE
        ),
    }
    return {"ms": _interleaved(acts)}


def _pool(batch: int, length: int, queries: int) -> tuple[list[Piece], KVLayer]:
    """Pages lie anywhere in the pool."""
    count = length // PAGE
    shape = (batch * count, PAGE, KV_HEADS, DIM)
    layer = KVLayer(*(torch.randn(shape).bfloat16() for _ in range(2)))
    pages = np.random.default_rng(1).permutation(batch * count).astype(np.int32).reshape(batch, count)
    return [Piece(length - queries, length, own) for own in pages], layer


def _interleaved(acts: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    for act in acts.values():
        act()
    times: dict[str, list[float]] = {name: [] for name in acts}
    for _ in range(RUNS):
        for name, act in acts.items():
            times[name].append(1000 * _fastest(act))
    return times


def _fastest(act: Callable[[], Any]) -> float:
    best, until = float("inf"), time.perf_counter() + WITHIN_S
    while True:
        began = time.perf_counter()
        act()
        best = min(best, time.perf_counter() - began)
        if time.perf_counter() > until:
            return best


def show(found: dict[str, Any]) -> str:
    where = (
        f"bfloat16, {HEADS} heads on {KV_HEADS}, dimension {DIM}, pages of {PAGE} anywhere; {found['threads']} threads"
    )
    rows = []
    for row in found["decodes"]:
        ms = row["ms"]
        speed = [row["read_bytes"] / each / 1e6 for each in ms["read"]]
        label = f"{row['batch']} x {row['length']}"
        share, gain = _ratio(ms["read"], ms["native"], percent=True), _ratio(ms["reference"], ms["native"])
        rows.append((label, _middle(ms["native"]), _middle(ms["reference"]), _middle(speed), share, gain))
    header = ("decode", "native ms", "reference ms", "ceiling GB/s", "of the ceiling", "reference / native")
    decodes = table(
        f"Attention of a decode step ({where}; {found['path']}). Medians of {RUNS} runs (least … most)", header, rows
    )
    rows = [
        (
            f"{row['queries']} of {row['length']}",
            _middle(row["ms"]["native"]),
            _middle(row["ms"]["sdpa"]),
            _ratio(row["ms"]["native"], row["ms"]["sdpa"]),
        )
        for row in found["prefills"]
    ]
    header = ("prefill", "native ms", "torch SDPA ms", "native / SDPA")
    return decodes + "\n" + table("Attention of a prefill, torch's on keys and values in one piece", header, rows)


def _middle(values: list[float]) -> float:
    return statistics.median(values)


def _ratio(upper: list[float], lower: list[float], *, percent: bool = False) -> str:
    ratios = [a / b for a, b in zip(upper, lower, strict=True)]
    form = "{:.0%}" if percent else "{:.2f}"
    middle, least, most = (form.format(of(ratios)) for of in (_middle, min, max))
    return f"{middle} ({least} … {most})"


def main() -> int:
    found = asyncio.run(measure())
    print(show(found))
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
