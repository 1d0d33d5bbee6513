"""What things cost, side by side in one run: tables here, all numbers in one JSON file.

python tests/bench/run.py                          everything (about fifteen minutes)
python tests/bench/run.py --only ledger,history    some of it
python tests/bench/run.py --write-docs             and docs/benchmarks.md with its plots, from these numbers
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE), str(HERE.parent / "fleet")]

import attention  # noqa: E402 - importable only from here on
import decode_step  # noqa: E402
import failover  # noqa: E402
import flatness  # noqa: E402
import history  # noqa: E402
import ledger_costs  # noqa: E402
import overhead  # noqa: E402
import page  # noqa: E402
import pressure  # noqa: E402
import recall  # noqa: E402
import scheduling  # noqa: E402


async def measure_failover(options: argparse.Namespace) -> dict[str, Any]:
    return (await failover.measure(options.points, options.seed))[1]


async def measure_recall(options: argparse.Namespace) -> dict[str, Any]:
    return (await recall.measure(options.items))[1]


Measure = Callable[[argparse.Namespace], Awaitable[dict[str, Any]]]
PARTS: dict[str, tuple[str, Measure, Callable[[dict[str, Any]], str]]] = {
    "gateway": ("what the gateway adds to a token", lambda _: overhead.measure(), overhead.show),
    "ledger": ("what the ledger costs", lambda _: ledger_costs.measure(), ledger_costs.show),
    "history": ("a turn's time against its history", lambda _: history.measure(), history.show),
    "flatness": ("a turn's time over a long conversation", lambda _: flatness.measure(), flatness.show),
    "pressure": ("many more sessions than the KV pool holds", lambda _: pressure.measure(), pressure.show),
    "attention": ("attention against the memory's speed and torch", lambda _: attention.measure(), attention.show),
    "decode": ("a decode step against reading its weights", lambda _: decode_step.measure(), decode_step.show),
    "scheduling": ("what the scheduler costs a step", lambda _: scheduling.measure(), scheduling.show),
    "failover": ("how long a client waits when its worker dies", measure_failover, failover.show),
    "recall": ("what berth-tiny remembers", measure_recall, recall.show),
}


def arguments() -> argparse.Namespace:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--only", help=f"comma-separated, of {', '.join(PARTS)}")
    flags.add_argument("--points", type=int, default=20, help="failover: turns that lose their worker")
    flags.add_argument("--items", type=int, default=200, help="recall: questions")
    flags.add_argument("--seed", type=int, default=1)
    flags.add_argument("--out", type=Path, default=ROOT / "build" / "bench", help="folder of results.json")
    flags.add_argument("--write-docs", action="store_true", help="write docs/benchmarks.md and its plots")
    options = flags.parse_args()
    options.only = options.only.split(",") if options.only else list(PARTS)
    if unknown := set(options.only) - PARTS.keys():
        flags.error(f"--only: no such part: {', '.join(sorted(unknown))}")
    return options


def machine() -> dict[str, Any]:
    """Where the numbers are from."""
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    return {"cpu": cpu.partition(": ")[2], "cores": os.cpu_count(), "python": platform.python_version()}


def write_docs(results: dict[str, Any], tables: dict[str, str]) -> None:
    """Make docs/benchmarks.md from this run's tables."""
    where = results["machine"]
    text = [
        "# Benchmarks",
        f"\nMeasured by `make bench` on {where['cpu']} ({where['cores']} cores), {results['date']}, all in one run.",
        "Times on a shared machine wander: compare rows of one table, not tables of two days. The aims: a gateway adds",
        "at most 1 ms to a first token and 150 µs to a later one; a client waits 250 ms at most beyond the re-prefill;",
        "attention of a decode reads at half of the memory's speed or more; a decode step of one session takes at most",
        "1.3 times what reading its weights and KV takes. That speed is what torch sums up a second with the same",
        "threads in the same run. Errors of attention are against float64, the largest as a share of the largest",
        "result.",
        *(tables[name] for name in PARTS if name in tables),
    ]
    if "history" in tables:
        text.append("\n![A turn's time against its history](turn-time-vs-history.svg)")
        history.plot(results["history"], ROOT / "docs" / "turn-time-vs-history.svg")
    if "flatness" in tables:
        text.append("\n![A turn's time over a long conversation](turn-time-vs-turn.svg)")
        flatness.plot(results["flatness"], ROOT / "docs" / "turn-time-vs-turn.svg")
    page.write(single="\n".join(text) + "\n")


def main() -> int:
    options = arguments()
    results: dict[str, Any] = {"machine": machine(), "date": time.strftime("%Y-%m-%d")}
    tables: dict[str, str] = {}
    failed: list[str] = []
    for number, name in enumerate(options.only, start=1):
        title, measure, show = PARTS[name]
        began = time.monotonic()
        print(f"\n[{number}/{len(options.only)}] {name}: {title} ...", flush=True)

        async def run(measure: Measure = measure) -> dict[str, Any]:
            return await measure(options)

        results[name] = asyncio.run(run())
        tables[name] = show(results[name])
        print(f"{tables[name]}\n({time.monotonic() - began:.0f} s)", flush=True)
        failed += [f"{name}: {text}" for text in results[name].get("wrong", [])]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(results, indent=1))
    print(f"\nwrote {options.out / 'results.json'}")
    if options.write_docs:
        write_docs(results, tables)
    for text in failed:
        print(f"WRONG {text}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
