"""A conversation of 150 turns: the last ones should cost what the first ones did, and the reading of the KV besides.

Eight sessions take their turns side by side, each round of turns together, on one worker without a gateway. A round
reads every session's KV once a pass, and how fast this machine reads is measured in the same run.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from pathlib import Path
from typing import Any

import history

from fleetkit.models import write_random_llama
from fleetkit.native import Heard, Native, lone_worker
from fleetkit.story import words
from fleetkit.table import table

SESSIONS, TURNS, INPUT, OUTPUT = 8, 150, 16, 8
BLOCK = 10
"""Turns of which the median is told."""
SHOWN = (1, 36, 71, 106, 141)
"""Where a block begins; the first turn is 1."""


async def measure() -> dict[str, Any]:
    """Return each round's median milliseconds, to the first token and in all, and what the machine reads a second."""
    shape = {"layers": history.LAYERS, "hidden": history.HIDDEN, "heads": history.HEADS, "kv_heads": history.KV_HEADS}
    args = ["--dtype", "float32", "--threads", "1", "--page-size", "16", "--slots", str(SESSIONS)]
    args += ["--max-total-tokens", str(2 * SESSIONS * TURNS * (INPUT + OUTPUT))]
    with tempfile.TemporaryDirectory(prefix="berth-flatness-") as name:
        folder = Path(name)
        model = write_random_llama(folder / "model", **shape)
        async with lone_worker(model, args, folder) as worker:
            speed = [history.bandwidth()]
            rounds = await _rounds(worker)
            speed.append(history.bandwidth())
    return {"rounds": rounds, "kv_bytes_a_token": history.KV_BYTES, "read_gb_s": statistics.mean(speed) / 1e9}


async def _rounds(worker: Native) -> list[dict[str, float]]:
    sessions = [await worker.open(1 << 20) for _ in range(SESSIONS)]
    rounds = []
    for turn in range(TURNS):
        asked = [_turn(worker, session, SESSIONS * turn + number) for number, session in enumerate(sessions)]
        heard = await asyncio.gather(*asked)
        rounds.append(
            {
                "first_ms": 1000 * statistics.median(each.first_s or 0.0 for each in heard),
                "turn_ms": 1000 * statistics.median(each.total_s for each in heard),
                "cached_tokens": statistics.median(each.meta["cached_tokens"] for each in heard),
            }
        )
        if (turn + 1) % 30 == 0:
            print(f"  {turn + 1} turns of each session", flush=True)
    return rounds


async def _turn(worker: Native, session: str, seed: int) -> Heard:
    sampling = {"temperature": 0, "max_new_tokens": OUTPUT, "ignore_eos": True}
    body = {"input_ids": words(seed, INPUT), "sampling_params": sampling, "session_params": {"id": session}}
    return await worker.stream(body)


def read_bytes(found: dict[str, Any], cached: float) -> float:
    """What a round of turns reads: the input's pass, then a pass for every output token but the first."""
    positions = sum(cached + INPUT + passes for passes in range(OUTPUT))
    return float(SESSIONS * positions * found["kv_bytes_a_token"])


def blocks(found: dict[str, Any]) -> list[dict[str, float]]:
    """The medians of the blocks that are shown."""
    made = []
    for first in SHOWN:
        block = found["rounds"][first - 1 : first - 1 + BLOCK]
        row = {part: statistics.median(each[part] for each in block) for part in block[0]}
        made.append(row | {"turn": first, "read": read_bytes(found, row["cached_tokens"])})
    return made


def show(found: dict[str, Any]) -> str:
    speed, base = found["read_gb_s"] * 1e9, blocks(found)[0]
    rows = []
    for row in blocks(found):
        grown = row["turn_ms"] - base["turn_ms"]
        by_reading = 1000 * (row["read"] - base["read"]) / speed
        label = f"{row['turn']:.0f} … {row['turn'] + BLOCK - 1:.0f}"
        ratio = row["turn_ms"] / base["turn_ms"]
        rows.append((label, row["first_ms"], row["turn_ms"], ratio, row["read"] / 1e6, grown, by_reading))
    header = ("turn", "first token ms", "turn ms", "/ first", "KV read MB", "grown ms", "by reading ms")
    title = f"{SESSIONS} sessions x {TURNS} turns ({INPUT} in, {OUTPUT} out; one thread reads {speed / 1e9:.1f} GB/s)"
    return table(title, header, rows)


def plot(found: dict[str, Any], path: Path) -> None:
    """Draw a turn's time, and the part that reading accounts for, into an SVG."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    rounds, base = found["rounds"], blocks(found)[0]
    turns = range(1, len(rounds) + 1)
    speed = found["read_gb_s"] * 1e9
    reading = [base["turn_ms"] + 1000 * (read_bytes(found, r["cached_tokens"]) - base["read"]) / speed for r in rounds]
    figure, axes = plt.subplots(figsize=(7, 4))
    axes.plot(turns, [r["turn_ms"] for r in rounds], ".", label="a whole turn")
    axes.plot(turns, [r["first_ms"] for r in rounds], ".", label="its first token")
    axes.plot(turns, reading, "-", label="the first turns and the reading of the KV")
    axes.set(xlabel="turn", ylabel="ms", title=f"{SESSIONS} sessions side by side: a turn's time, turn by turn")
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
