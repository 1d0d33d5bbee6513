"""Attention alone: what the native backend gets of the memory's speed when it decodes, and of torch's when it prefills.

    python tests/bench/attention.py

Each row is measured in interleaved runs of everything in it, so that the machine's moods hit all alike; ratios are
taken within a run. The read ceiling is a sum over as many bytes as the decode reads, by torch with the same threads.
Errors are the largest of a sequence's results against float64, as a share of the largest result.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent / "fleet")]

from interleaved import RUNS, interleaved, middle, ratio  # noqa: E402

from berth_kernels.interface import KVLayer  # noqa: E402 - importable only from here on
from berth_kernels.native import NativeKernels  # noqa: E402
from berth_kernels.reference import ReferenceKernels  # noqa: E402
from berth_worker.models.memory import Memory  # noqa: E402
from fleetkit.table import table  # noqa: E402

HEADS, KV_HEADS, DIM, PAGE = 32, 8, 128, 16
SCALE = DIM**-0.5
DECODES = ((8, 2048), (8, 8192), (1, 32768))
"""Sequences, positions each."""
PREFILLS = ((512, 512), (512, 2048), (512, 8192), (2048, 2048))
"""Queries at the end of so many positions."""
CHECKED = 32
"""Queries of a prefill that are computed in float64 as well."""


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
    flat = Memory(torch.float32).new(read // 4).fill_(1)
    acts: dict[str, Callable[[], Any]] = {"read": flat.sum}
    for kernels in (native, ReferenceKernels()):
        plan = kernels.plan(pieces, PAGE)
        acts[kernels.name] = lambda plan=plan: plan.attend(layer, query, scale=SCALE, window=None)
    exact = _exact(pieces[0], layer, query[:1])
    errors = {name: _error(acts[name]()[:1], exact) for name in ("native", "reference")}
    return {"read_bytes": read, "ms": interleaved(acts), "errors": errors}


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
    last = min(queries, CHECKED)
    error = _error(acts["native"]()[-last:], _exact(pieces[0], layer, query[-last:]))
    return {"ms": interleaved(acts), "error": error}


def _pool(batch: int, length: int, queries: int) -> tuple[list[Piece], KVLayer]:
    """Pages lie anywhere in the pool."""
    count = length // PAGE
    shape = (batch * count, PAGE, KV_HEADS, DIM)
    memory = Memory(torch.bfloat16)
    layer = KVLayer(*(memory.new(*shape).normal_() for _ in range(2)))
    pages = np.random.default_rng(1).permutation(batch * count).astype(np.int32).reshape(batch, count)
    return [Piece(length - queries, length, own) for own in pages], layer


def _exact(piece: Piece, layer: KVLayer, query: torch.Tensor) -> torch.Tensor:
    """Return a sequence's attention in float64; `query` (queries, HEADS, DIM) are its last positions."""
    pages = torch.from_numpy(piece.pages.astype(np.int64))
    key, value = (pool[pages].flatten(0, 1)[: piece.end].double() for pool in layer)
    grouped = query.double().view(len(query), KV_HEADS, -1, DIM)
    scores = torch.einsum("qngd,knd->ngqk", grouped, key) * SCALE
    scores += torch.ones(len(query), piece.end).tril(piece.end - len(query)).log()
    return torch.einsum("ngqk,knd->qngd", scores.softmax(-1), value).flatten(1, 2)


def _error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.double() - exact).abs().max() / exact.abs().max())


def show(found: dict[str, Any]) -> str:
    where = (
        f"bfloat16, {HEADS} heads on {KV_HEADS}, dimension {DIM}, pages of {PAGE} anywhere; {found['threads']} threads"
    )
    rows = []
    for row in found["decodes"]:
        ms = row["ms"]
        speed = [row["read_bytes"] / each / 1e6 for each in ms["read"]]
        label = f"{row['batch']} x {row['length']}"
        share, gain = ratio(ms["read"], ms["native"], percent=True), ratio(ms["reference"], ms["native"])
        reached = [row["read_bytes"] / each / 1e6 for each in ms["native"]]
        errors = [f"{row['errors'][name]:.1%}" for name in ("native", "reference")]
        rows.append((label, middle(ms["native"]), middle(reached), middle(speed), share, gain, *errors))
    header = (
        "decode",
        "native ms",
        "GB/s",
        "ceiling GB/s",
        "of the ceiling",
        "reference / native",
        "error",
        "reference's error",
    )
    decodes = table(
        f"Attention of a decode step ({where}; {found['path']}). Medians of {RUNS} runs (least … most)", header, rows
    )
    rows = [
        (
            f"{row['queries']} of {row['length']}",
            middle(row["ms"]["native"]),
            middle(row["ms"]["sdpa"]),
            ratio(row["ms"]["native"], row["ms"]["sdpa"]),
            f"{row['error']:.1%}",
        )
        for row in found["prefills"]
    ]
    header = ("prefill", "native ms", "torch SDPA ms", "native / SDPA", "error")
    return decodes + "\n" + table("Attention of a prefill, torch's on keys and values in one piece", header, rows)


def main() -> int:
    found = asyncio.run(measure())
    print(show(found))
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
