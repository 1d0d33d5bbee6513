"""The GPU backend on a GPU: is it right, and how near is decoding to the memory's speed. Minutes, and no network.

    python tests/bench/gpu.py

Without a GPU it does what needs none, says what is left out and for want of what, and that is no failure.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS / "fleet"), str(TESTS / "kernels")]

from berth_kernels.gpu import missing  # noqa: E402 - importable only from here on
from berth_kernels.interface import KernelError, Kernels, KVLayer  # noqa: E402
from berth_kernels.ops import Draw, Ops  # noqa: E402
from berth_kernels.reference import ReferenceKernels  # noqa: E402
from berth_kernels.select import select  # noqa: E402
from fleetkit.table import table  # noqa: E402
from kernelkit.paged import Batch, Piece  # noqa: E402

HEADS, KV_HEADS, DIM, PAGE = 32, 8, 128, 16
SCALE = DIM**-0.5
SHAPES = {
    "decodes": [(length, length + 1) for length in (0, 15, 16, 700, 2047)],
    "a prompt in chunks": [(0, 300), (300, 812), (64, 65)],
}
DECODES = ((1, 2048), (1, 32_768), (8, 8192), (64, 2048), (64, 8192))
"""Sequences, positions each."""
VOCAB, DRAWN = 128_256, (1, 64)
RUNS, WITHIN = 5, 50
"""Runs of a row, and repetitions in a run."""

NEEDS_GPU = (
    "FlashInfer's attention against the reference's",
    "draws and page copies by Triton against the reference's",
    "decode attention against the memory's speed, and what a draw costs",
)


def main() -> int:
    lacks = missing()
    backends, said = _backends([] if lacks else ["flashinfer"])
    print(_against_float64(backends))
    for line in said:
        print(line)
    if lacks:
        print(f"Left out for want of {' and '.join(lacks)}:")
        print("\n".join(f"  - {part}" for part in NEEDS_GPU))
        return 0
    gpu = backends["flashinfer"]
    print(_device_ops(gpu))
    found = {"gpu": torch.cuda.get_device_name(), "decodes": _decodes(gpu), "draws": _draws(gpu)}
    print(_shown(found))
    print(json.dumps(found))
    return 0


def _backends(more: list[str]) -> tuple[dict[str, Kernels], list[str]]:
    """Return the backends that can be had, and why others cannot."""
    backends, said = {}, []
    for name in ["reference", "native", *more]:
        try:
            backends[name] = select(name)
        except KernelError as error:
            said.append(f"Left out: {name} ({error})")
    return backends, said


@torch.inference_mode()
def _against_float64(backends: dict[str, Kernels]) -> str:
    """Return the largest error of each backend, bfloat16 in and out, on values drawn from a normal distribution."""
    rows = []
    for (name, spans), window, sinks in (
        (shape, window, sinks) for shape in SHAPES.items() for window in (None, 128) for sinks in (False, True)
    ):
        batch = Batch.random(spans, PAGE, heads=HEADS, kv_heads=KV_HEADS, dim=DIM, dtype=torch.bfloat16)
        logits = torch.linspace(-2, 2, HEADS) if sinks else None
        expected = batch.by_hand(scale=SCALE, window=window, sinks=logits)
        errors = []
        for backend, kernels in backends.items():
            device = torch.device("cuda" if backend == "flashinfer" else "cpu")
            own = _moved(batch, device)
            found = own.attend(kernels, scale=SCALE, window=window, sinks=None if logits is None else logits.to(device))
            errors.append(float((found.cpu().double() - expected).abs().max()))
        label = f"{name}{'' if window is None else f', window {window}'}{', sinks' if sinks else ''}"
        rows.append((label, *(f"{error:.4f}" for error in errors)))
    title = f"Largest difference from float64 (bfloat16, {HEADS} heads on {KV_HEADS}, dimension {DIM})"
    return table(title, ("batch", *backends), rows)


def _moved(batch: Batch, device: torch.device) -> Batch:
    """Return a copy of `batch` on `device`."""
    pieces = [replace(piece, key=piece.key.to(device), value=piece.value.to(device)) for piece in batch.pieces]
    layer = KVLayer(*(each.to(device, copy=True) for each in batch.layer))
    return replace(batch, pieces=pieces, layer=layer, query=batch.query.to(device))


@torch.inference_mode()
def _device_ops(gpu: Ops) -> str:
    """Compare draws and copies on the device with the reference's on the CPU."""
    reference = ReferenceKernels()
    draws = list(_all_kinds())
    logits = 4 * torch.randn(len(draws), VOCAB, generator=torch.Generator().manual_seed(0))
    same = reference.sample(logits, draws) == gpu.sample(logits.cuda(), draws).cpu()
    alone = torch.cat([gpu.sample(logits[row : row + 1].cuda(), [draw]) for row, draw in enumerate(draws)])
    apart = alone == gpu.sample(logits.cuda(), draws)
    pool = [KVLayer(*torch.randn(2, 64, PAGE, KV_HEADS, DIM)) for _ in range(4)]
    copied = [KVLayer(*(each.cuda() for each in layer)) for layer in pool]
    sources, targets = np.arange(0, 30, dtype=np.int32), np.arange(30, 60, dtype=np.int32)
    reference.copy_pages(pool, sources, targets)
    gpu.copy_pages(copied, sources, targets)
    equal = all(
        torch.equal(a, b.cpu()) for old, new in zip(pool, copied, strict=True) for a, b in zip(old, new, strict=True)
    )
    rows = [
        ("draws equal to the reference's", f"{int(same.sum())} of {len(draws)}"),
        ("draws equal alone and in the batch", f"{int(apart.sum())} of {len(draws)}"),
        ("copied pages equal", "yes" if equal else "NO"),
    ]
    return table("On the device, against the reference on the CPU", ("what", "found"), rows)


def _all_kinds() -> Iterator[Draw]:
    kinds = [
        (temperature, top_k, top_p, min_p)
        for temperature in (0.0, 0.7, 1.5)
        for top_k in (-1, 40)
        for top_p in (0.9, 1.0)
        for min_p in (0.0, 0.05)
    ]
    for seed in range(10):
        yield from (Draw(seed, at, *kind) for at, kind in enumerate(kinds))


@torch.inference_mode()
def _decodes(gpu: Kernels) -> list[dict[str, Any]]:
    """Return, for each shape, ms of a decode's attention and of a sum over as many bytes; runs alternate."""
    found = []
    for batch, length in DECODES:
        print(f"  decode {batch} x {length}", flush=True)
        count = length // PAGE
        shape = (batch * count, PAGE, KV_HEADS, DIM)
        layer = KVLayer(*(torch.randn(shape, dtype=torch.bfloat16, device="cuda") for _ in range(2)))
        pages = np.random.default_rng(1).permutation(batch * count).astype(np.int32).reshape(batch, count)
        nothing = torch.empty(0)
        pieces = [Piece(length - 1, length, own, nothing, nothing) for own in pages]
        query = torch.randn(batch, HEADS, DIM, dtype=torch.bfloat16, device="cuda")
        plan = gpu.plan(pieces, PAGE)
        read = sum(each.numel() * each.element_size() for each in layer)
        flat = torch.ones(read // 4, device="cuda")
        acts = {"read": flat.sum, "attend": lambda p=plan, q=query, kv=layer: p.attend(kv, q, scale=SCALE, window=None)}
        found.append({"batch": batch, "length": length, "read_bytes": read, "ms": _timed(acts)})
    return found


@torch.inference_mode()
def _draws(gpu: Ops) -> list[dict[str, Any]]:
    """Return ms of a draw for a batch, with and without filters, and of torch's sort, that others begin with."""
    found = []
    for rows in DRAWN:
        print(f"  draw {rows} x {VOCAB}", flush=True)
        logits = torch.randn(rows, VOCAB, device="cuda")
        plain, filtered = [Draw(row, 1) for row in range(rows)], [Draw(row, 1, 0.8, 40, 0.95) for row in range(rows)]
        acts = {
            "sort": lambda x=logits: x.sort(-1),
            "plain": lambda x=logits, d=plain: gpu.sample(x, d),
            "filtered": lambda x=logits, d=filtered: gpu.sample(x, d),
        }
        found.append({"rows": rows, "ms": _timed(acts)})
    return found


def _timed(acts: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Return milliseconds of each run of each act, by the device's clock."""
    for act in acts.values():
        act()
    times: dict[str, list[float]] = {name: [] for name in acts}
    for _ in range(RUNS):
        for name, act in acts.items():
            began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            began.record()
            for _ in range(WITHIN):
                act()
            ended.record()
            ended.synchronize()
            times[name].append(began.elapsed_time(ended) / WITHIN)
    return times


def _shown(found: dict[str, Any]) -> str:
    rows = []
    for row in found["decodes"]:
        read, attend = (statistics.median(row["ms"][name]) for name in ("read", "attend"))
        speed = f"{row['read_bytes'] / read / 1e6:.0f}"
        rows.append((f"{row['batch']} x {row['length']}", attend, read, speed, f"{read / attend:.0%}"))
    header = ("decode", "attention ms", "reading as much ms", "GB/s", "of the memory's speed")
    decodes = table(f"A layer's decode attention on {found['gpu']}, launches included", header, rows)
    rows = [
        (str(row["rows"]), *(statistics.median(row["ms"][name]) for name in ("plain", "filtered", "sort")))
        for row in found["draws"]
    ]
    header = ("rows", "plain ms", "top_k, top_p ms", "torch's sort ms")
    return decodes + "\n" + table(f"Draws from {VOCAB} logits, the host's part included", header, rows)


if __name__ == "__main__":
    sys.exit(main())
