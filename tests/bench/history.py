"""What a turn costs as its session's history grows: it should pay for its own tokens and for reading the KV, no more.

A session of a random Llama is grown turn by turn through the gateway. Beside each turn's time stands what must be read:
the KV bytes of the history once a token. The bandwidth that the machine gives is measured in the same run.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from fleetkit.client import Client, greedy
from fleetkit.models import write_random_llama
from fleetkit.rig import Rig
from fleetkit.story import words
from fleetkit.table import table

LAYERS, HIDDEN, HEADS, KV_HEADS = 4, 256, 8, 4
KV_BYTES = 2 * LAYERS * KV_HEADS * (HIDDEN // HEADS) * 4
"""A token's keys and values, float32."""
INPUT, OUTPUT = 16, 24
LENGTHS = (256, 512, 1024, 2048, 3072, 4096, 6144)
REPEATS = 5


def bandwidth() -> float:
    """Bytes a second at which one thread reads memory, here and now."""
    data = np.ones(1 << 25, dtype=np.float32)
    best = min(_timed(lambda: float(data.sum())) for _ in range(5))
    return data.nbytes / best


def _timed(act: Any) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


async def measure() -> dict[str, Any]:
    """Return a row a length: seconds to the first token, seconds a later token, KV bytes read a token."""
    with tempfile.TemporaryDirectory(prefix="berth-history-") as folder:
        shape = {"layers": LAYERS, "hidden": HIDDEN, "heads": HEADS, "kv_heads": KV_HEADS}
        model = write_random_llama(Path(folder) / "model", **shape)
        worker = ["--dtype", "float32", "--threads", "1", "--page-size", "16", "--chunked-prefill-size", "512"]
        rig = Rig(Path(folder) / "rig", str(model), [*worker, "--max-total-tokens", "16384"])
        try:
            await rig.start(workers=1, gateways=1)
            async with aiohttp.ClientSession() as http:
                rows = await _grow(Client(http, rig.gateways[0].url))
        finally:
            await rig.close()
    return {"rows": rows, "kv_bytes_a_token": KV_BYTES, "read_gb_s": bandwidth() / 1e9}


async def _grow(client: Client) -> list[dict[str, float]]:
    name = (await client.open())["name"]
    rows = []
    for length in LENGTHS:
        missing = length - (await client.session(name))["tokens"]
        await client.turn(name, greedy(words(length, missing - 1), 1))
        print(f"  history of {length} tokens", flush=True)
        samples = [await _turn(client, name, length + repeat) for repeat in range(REPEATS)]
        first, later, cached = (statistics.median(sample[part] for sample in samples) for part in range(3))
        rows.append({"history": length, "first_token_ms": first, "later_token_ms": later, "cached_tokens": cached})
    return rows


async def _turn(client: Client, name: str, seed: int) -> tuple[float, float, float]:
    began = time.monotonic()
    seen = await client.turn(name, greedy(words(seed, INPUT), OUTPUT))
    tokens = seen.named("token")
    first, last = tokens[0].at - began, tokens[-1].at - tokens[0].at
    return 1000 * first, 1000 * last / (OUTPUT - len(tokens[0].data["ids"])), seen.end["usage"]["cached_tokens"]


def show(found: dict[str, Any]) -> str:
    speed = found["read_gb_s"] * 1e9
    base = found["rows"][0]
    rows = []
    for row in found["rows"]:
        kv = row["cached_tokens"] * found["kv_bytes_a_token"]
        grown = row["later_token_ms"] - base["later_token_ms"]
        must = 1000 * (kv - base["cached_tokens"] * found["kv_bytes_a_token"]) / speed
        values = (row["first_token_ms"], row["later_token_ms"], kv / 1e6, 1000 * kv / speed, grown, must)
        rows.append((int(row["cached_tokens"]), *values))
    header = ("history, cached", "first token ms", "later token ms", "KV MB", "read ms", "grown ms", "by reading ms")
    title = f"A turn's time against its history ({INPUT} in, {OUTPUT} out; one thread reads {speed / 1e9:.1f} GB/s)"
    return table(title, header, rows)


def plot(found: dict[str, Any], path: Path) -> None:
    """Draw the times over the history into an SVG."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    history = [row["cached_tokens"] for row in found["rows"]]
    figure, axes = plt.subplots(figsize=(7, 4))
    axes.plot(history, [row["first_token_ms"] for row in found["rows"]], "o-", label="first token")
    axes.plot(history, [row["later_token_ms"] for row in found["rows"]], "s-", label="a later token")
    axes.set(xlabel="history (tokens)", ylabel="ms", title="A turn's time against its session's history")
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
