"""Many more sessions than the KV pool holds, all at once: everybody finishes, nobody starves, and no token differs.

    python tests/bench/pressure.py [--sessions 64] [--turns 20]

A worker whose pool holds about four of the sessions evicts, retracts and re-prefills all the time. Afterwards a second,
roomy worker answers each turn again as one request with the whole history and no KV to begin with. Exit 1 on any
difference.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "fleet")]

from fleetkit.models import write_random_llama  # noqa: E402 - importable only from here on
from fleetkit.native import Heard, Native, lone_worker  # noqa: E402
from fleetkit.table import percentile, table  # noqa: E402

SESSIONS, TURNS, FIT, SLOTS, PAGE = 64, 20, 4, 32, 4
INPUTS, OUTPUTS = (4, 24), (4, 12)
"""Fewest and most tokens of a turn."""
LONG = 200
"""Output of everybody's middle turn: more than admission sees to, so that room runs out under running requests."""
BASE = ["--dtype", "float32", "--threads", "1", "--page-size", str(PAGE)]
COUNTERS = {
    "evictions": "berth_worker_slot_releases_total{evicted}",
    "retracts": "berth_worker_retracts_total",
    "reprefilled_tokens": "berth_worker_reprefilled_tokens_total",
}


@dataclass
class Talk:
    """One session: what it asks, turn by turn, and what it heard."""

    plan: list[tuple[list[int], int]]
    """Input ids, and how many output ids."""
    heard: list[Heard] = field(default_factory=list)
    total_s: float = 0.0

    @property
    def tokens(self) -> int:
        return sum(len(ids) + new for ids, new in self.plan)

    def prompt(self, turn: int) -> list[int]:
        """The whole history up to the output of `turn`."""
        before = [token for (ids, _), heard in zip(self.plan, self.heard, strict=True) for token in ids + heard.ids]
        known = sum(len(ids) + len(heard.ids) for (ids, _), heard in zip(self.plan[:turn], self.heard, strict=False))
        return before[:known] + self.plan[turn][0]


def plans(sessions: int, turns: int, seed: int = 1) -> list[Talk]:
    """Different inputs of different lengths for everybody."""
    rng = random.Random(seed)

    def turn() -> tuple[list[int], int]:
        return [rng.randrange(256) for _ in range(rng.randint(*INPUTS))], rng.randint(*OUTPUTS)

    talks = [Talk([turn() for _ in range(turns)]) for _ in range(sessions)]
    for talk in talks:
        talk.plan[turns // 2] = (talk.plan[turns // 2][0], LONG)
    return talks


def body(ids: list[int], new: int) -> dict[str, Any]:
    return {"input_ids": ids, "sampling_params": {"temperature": 0, "max_new_tokens": new, "ignore_eos": True}}


async def measure(sessions: int = SESSIONS, turns: int = TURNS) -> dict[str, Any]:
    """Return the waits, the worker's counters, and `wrong`: every turn whose output differs."""
    talks = plans(sessions, turns)
    pool = FIT * sum(talk.tokens for talk in talks) // sessions // PAGE * PAGE
    pool = max(pool, max(talk.tokens for talk in talks) + PAGE)
    with tempfile.TemporaryDirectory(prefix="berth-pressure-") as name:
        folder = Path(name)
        model = write_random_llama(folder / "model")
        tight = ["--slots", str(SLOTS), "--max-total-tokens", str(pool), "--check-memory", "busy"]
        async with lone_worker(model, BASE + tight, folder, "tight") as worker:
            found = await _under_pressure(worker, talks)
        roomy = ["--slots", str(sessions), "--max-total-tokens", str(2 * sum(talk.tokens for talk in talks))]
        async with lone_worker(model, BASE + roomy, folder, "roomy") as worker:
            wrong = await _compare(worker, talks)
    return found | {"sessions": sessions, "turns": sessions * turns, "pool": pool, "slots": SLOTS, "wrong": wrong}


async def _under_pressure(worker: Native, talks: list[Talk]) -> dict[str, Any]:
    async with _progress(talks):
        began = time.monotonic()
        await asyncio.gather(*(_talk(worker, talk) for talk in talks))
        seconds = time.monotonic() - began
    counted = await worker.metrics()
    waits = [1000 * (heard.first_s or 0.0) for talk in talks for heard in talk.heard]
    totals = [talk.total_s for talk in talks]
    return {name: int(counted.get(metric, 0)) for name, metric in COUNTERS.items()} | {
        "seconds": seconds,
        "wait_ms": {"mean": statistics.mean(waits), "p50": percentile(waits, 0.5), "p99": percentile(waits, 0.99)},
        "longest_ms": max(waits),
        "session_s": {"least": min(totals), "median": statistics.median(totals), "most": max(totals)},
    }


async def _talk(worker: Native, talk: Talk) -> None:
    began = time.monotonic()
    session = await worker.open(1 << 20)
    for ids, new in talk.plan:
        talk.heard.append(await worker.stream(body(ids, new) | {"session_params": {"id": session}}))
    talk.total_s = time.monotonic() - began
    await worker.close(session)


@asynccontextmanager
async def _progress(talks: list[Talk]) -> AsyncIterator[None]:
    async def tell() -> None:
        while True:
            await asyncio.sleep(5)
            print(f"  {sum(len(talk.heard) for talk in talks)} turns", flush=True)

    telling = asyncio.create_task(tell())
    try:
        yield
    finally:
        telling.cancel()


async def _compare(worker: Native, talks: list[Talk]) -> list[str]:
    """Return what differs from sessionless requests. Flushed after every turn: nothing is there to begin with."""
    wrong = []
    for turn in range(len(talks[0].plan)):
        again: list[Awaitable[Any]] = [
            worker.call("/generate", body(talk.prompt(turn), talk.plan[turn][1])) for talk in talks
        ]
        for number, (talk, whole) in enumerate(zip(talks, await asyncio.gather(*again), strict=True)):
            heard, meta = talk.heard[turn], whole["meta_info"]
            if (heard.ids, heard.finish) != (whole["output_ids"], "length"):
                wrong.append(f"session {number}, turn {turn}: {heard.ids} ({heard.finish}), not {whole['output_ids']}")
            if heard.meta["prompt_tokens"] != meta["prompt_tokens"] or meta["cached_tokens"]:
                wrong.append(f"session {number}, turn {turn}: {heard.meta} is not the prompt of {meta}")
        await worker.call("/flush_cache")
        if (turn + 1) % 5 == 0:
            print(f"  compared {turn + 1} turns of each session", flush=True)
    return wrong


def show(found: dict[str, Any]) -> str:
    wait, total = found["wait_ms"], found["session_s"]
    rows: list[tuple[object, ...]] = [
        ("turns, all equal" if not found["wrong"] else f"turns, {len(found['wrong'])} DIFFERENCES", found["turns"]),
        ("slots evicted", found["evictions"]),
        ("requests retracted", found["retracts"]),
        ("tokens re-prefilled", found["reprefilled_tokens"]),
        ("wait for the first token, mean ms", wait["mean"]),
        ("… p50 ms", wait["p50"]),
        ("… p99 ms", wait["p99"]),
        ("… longest ms", found["longest_ms"]),
        ("longest wait / mean", found["longest_ms"] / wait["mean"]),
        ("a session's whole time, median s", total["median"]),
        ("… longest / shortest", total["most"] / total["least"]),
    ]
    title = (
        f"{found['sessions']} sessions at once on a KV pool for {FIT} ({found['pool']} tokens, {found['slots']} slots)"
    )
    return table(title, ("", "measured"), rows)


def main() -> int:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--sessions", type=int, default=SESSIONS)
    flags.add_argument("--turns", type=int, default=TURNS)
    options = flags.parse_args()
    found = asyncio.run(measure(options.sessions, options.turns))
    print(show(found))
    for text in found["wrong"][:20]:
        print(f"WRONG {text}")
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
