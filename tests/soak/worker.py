"""One worker under everything that clients do, for an hour: nothing leaks, nothing hangs, no token differs.

    python tests/soak/worker.py --minutes 60 [--page-size 16] [--retract-every 7] [--mixed-chunk]

First a worker that checks its books after every step (a sixth of the time), then one that checks when it is idle. Each
is at the end idle and empty, to the token, the row and the descriptor. Exit 1 on anything odd; the report with the
series is a JSON file.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "fleet")]

from gateway_user import GatewayUser  # noqa: E402 - importable only from here on
from gauges import Gauges, descriptors, slope_mib_h, tasks  # noqa: E402
from native_users import BadUser, PlainUser, SessionUser  # noqa: E402
from tally import Tally  # noqa: E402

from fleetkit.models import write_random_llama  # noqa: E402
from fleetkit.native import Native, lone_worker  # noqa: E402
from fleetkit.story import eventually  # noqa: E402
from fleetkit.table import table  # noqa: E402

WORKER_ARGS = ["--dtype", "float32", "--threads", "1", "--chunked-prefill-size", "64", "--slots", "12"]
WORKER_ARGS += ["--max-total-tokens", "4096", "--context-length", "1024"]
"""Room for a third of what the clients keep: eviction is part of the traffic."""
SAMPLE_S, PROGRESS_S = 10.0, 30.0
SLOPE_LIMIT_MIB_H = 10.0
"""A leak of 100 bytes a request is 20 MiB an hour at 60 requests a second; what is kept on purpose (fences, 200 bytes a
gateway session) grows by 1, and the allocator wanders by a few: 4 were measured over 50 minutes."""
SLOPE_LEAST_S = 1800.0
"""A shorter series is all warm-up: its slope is told and not judged."""
THREADS_MOST = 8 + min(32, (os.cpu_count() or 1) + 4)
"""The interpreter's own pool for blocking calls when it is full, and the engine, torch and uvloop beside it."""


def arguments() -> argparse.Namespace:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--minutes", type=float, default=60.0)
    flags.add_argument("--seed", type=int, default=1)
    flags.add_argument("--sessions", type=int, default=10, help="clients with native sessions")
    flags.add_argument("--gateways", type=int, default=5, help="clients with a gateway's sessions")
    flags.add_argument("--plain", type=int, default=3, help="clients without sessions")
    flags.add_argument("--page-size", type=int, default=16)
    flags.add_argument("--retract-every", type=int)
    flags.add_argument("--mixed-chunk", action="store_true")
    flags.add_argument("--report", type=Path, default=Path("build/soak/worker.json"))
    return flags.parse_args()


def worker_args(options: argparse.Namespace, check: str) -> list[str]:
    args = [*WORKER_ARGS, "--page-size", str(options.page_size), "--check-memory", check]
    if options.retract_every:
        args += ["--retract-every", str(options.retract_every)]
    return args + ["--mixed-chunk"] * options.mixed_chunk


async def soak(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run both phases and return the report."""
    model = write_random_llama(folder / "model")
    seconds = 60 * options.minutes
    phases = {"busy": seconds / 6, "idle": seconds * 5 / 6}
    report: dict[str, Any] = {"seed": options.seed, "minutes": options.minutes, "phases": {}}
    for check, lasts in phases.items():
        say(f"{lasts:.0f} s with --check-memory {check}")
        async with lone_worker(model, worker_args(options, check), folder, check) as worker:
            report["phases"][check] = await phase(worker, options, lasts)
    return report


async def phase(worker: Native, options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """Traffic for so long; then everything must be as it was."""
    tally, gauges = Tally(), Gauges(worker, SAMPLE_S)
    first = await gauges.look()
    before = first["descriptors"]
    sampling = asyncio.create_task(gauges.run())
    telling = asyncio.create_task(progress(worker, tally, gauges, seconds))
    users = [asyncio.create_task(user) for user in await population(worker, tally, options)]
    await asyncio.sleep(seconds)
    tally.ending.set()
    _, stuck = await asyncio.wait(users, timeout=120.0)
    tally.expect(not stuck, f"{len(stuck)} clients still wait for an answer")
    for task in [sampling, telling, *stuck]:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    series = list(gauges.series)
    await empty(worker, tally)
    say(f"comparing {len(tally.samples)} outputs with whole-prompt requests")
    await tally.verify(worker)
    await empty(worker, tally)
    counted = await worker.metrics()
    after = await bare_descriptors(worker, before)
    left = await last_tasks(worker, first["tasks"])
    tally.expect(left <= first["tasks"], f"{left} tasks are left, {first['tasks']} were there at first")
    judge(tally, series, before, after)
    return {
        "seconds": seconds,
        "done": dict(tally.done),
        "verified": len(tally.samples),
        "counters": {name: value for name, value in counted.items() if name.endswith("_total") or "_total{" in name},
        "slope_mib_h": slope_mib_h(series),
        "descriptors": {"before": before, "most": max(each["descriptors"] for each in series), "after": after},
        "tasks": {"before": first["tasks"], "most": max(each["tasks"] for each in series), "after": left},
        "odd": tally.odd,
        "series": series,
    }


async def population(worker: Native, tally: Tally, options: argparse.Namespace) -> list[Any]:
    """Everybody, each with dice of its own."""
    status, model = await worker.ask("/berth/model", method="GET")
    if status != 200:
        raise RuntimeError(f"/berth/model: {status} {model}")

    def dice(kind: str, number: int) -> random.Random:
        return random.Random(f"{kind}-{options.seed}-{number}")

    users: list[Callable[[], Awaitable[None]]] = [BadUser(worker, tally, dice("bad", 0)).run]
    users += [SessionUser(worker, tally, dice("session", number)).run for number in range(options.sessions)]
    users += [PlainUser(worker, tally, dice("plain", number)).run for number in range(options.plain)]
    fingerprint = model["fingerprint"]
    users += [GatewayUser(worker, tally, dice("gateway", n), fingerprint).run for n in range(options.gateways)]
    return [guarded(user, tally) for user in users]


async def guarded(user: Callable[[], Awaitable[None]], tally: Tally) -> None:
    """Run a client; what breaks it is odd, and it begins again."""
    while not tally.ending.is_set():
        try:
            await user()
        except Exception as error:
            tally.odd.append(f"{type(error).__name__}: {error}")
            await asyncio.sleep(1.0)


async def progress(worker: Native, tally: Tally, gauges: Gauges, seconds: float) -> None:
    """One line every half minute."""
    began = time.monotonic()
    while True:
        await asyncio.sleep(PROGRESS_S)
        last, counted = gauges.series[-1], await worker.metrics()
        retracts, evicted = (
            counted.get(f"berth_worker_{name}", 0) for name in ("retracts_total", "slot_releases_total{evicted}")
        )
        say(
            f"{time.monotonic() - began:5.0f} of {seconds:.0f} s  {tally.done.total()} done  {evicted:.0f} evicted"
            f"  {retracts:.0f} retracted  {last['rss_mib']:.1f} MiB  {last['descriptors']} descriptors"
            f"  odd {len(tally.odd)}"
        )


async def empty(worker: Native, tally: Tally) -> None:
    """No request is left, and every session was closed or released: only prompts are kept; after a flush, nothing."""

    async def idle() -> bool:
        counted = await worker.metrics()
        return not counted["berth_worker_requests_running"] and not counted["berth_worker_requests_queued"]

    try:
        await eventually(idle, "the worker is idle")
        memory = await worker.memory()
        kept = memory["available"] + memory["evictable"]
        tally.expect(kept == memory["total"] and _all_free(memory), f"sessions are gone, and this is held: {memory}")
        await worker.call("/flush_cache")
    except Exception as error:
        tally.odd.append(f"the worker did not become idle: {error}")
    memory = await worker.memory()
    tally.expect(memory["available"] == memory["total"] and _all_free(memory), f"leaked: {memory}")


def _all_free(memory: dict[str, Any]) -> bool:
    return bool(memory["rows"]["free"] == memory["rows"]["total"])


async def bare_descriptors(worker: Native, before: int) -> int:
    """Close every connection of the clients; return what the worker has open then. No request is possible any more."""
    await worker.http.close()

    async def few() -> bool:
        return descriptors(worker.process.pid) <= before

    with contextlib.suppress(TimeoutError):
        await eventually(few, "connections are closed", timeout_s=10.0)
    return descriptors(worker.process.pid)


async def last_tasks(worker: Native, before: int) -> int:
    """Return what the worker has running for one client alone, as at first: the other connections are gone by now."""
    async with aiohttp.ClientSession() as http:
        alone = replace(worker, http=http)

        async def few() -> bool:
            return await tasks(alone) <= before

        with contextlib.suppress(TimeoutError):
            await eventually(few, "tasks have ended", timeout_s=10.0)
        return await tasks(alone)


def judge(tally: Tally, series: list[dict[str, Any]], before: int, after: int) -> None:
    """Memory, descriptors and threads against what this file says of them."""
    slope, most = slope_mib_h(series), max(each["threads"] for each in series)
    long_enough = series[-1]["at_s"] >= SLOPE_LEAST_S
    tally.expect(not long_enough or slope <= SLOPE_LIMIT_MIB_H, f"memory grows by {slope:.1f} MiB an hour")
    tally.expect(after <= before, f"{after} descriptors are open, {before} were")
    tally.expect(most <= THREADS_MOST, f"{most} threads")


def say(text: str) -> None:
    print(text, flush=True)


def tell(report: dict[str, Any]) -> None:
    """The report for people."""
    rows: list[list[object]] = []
    phases = report["phases"]

    def row(name: str, of: Callable[[dict[str, Any]], object]) -> None:
        rows.append([name, *(of(each) for each in phases.values())])

    row("seconds", lambda each: each["seconds"])
    for name in sorted({name for each in phases.values() for name in each["done"]}):
        row(name, lambda each, name=name: each["done"].get(name, 0))  # type: ignore[misc]
    for name in ("generated_tokens_total", "steps_total", "retracts_total", "slot_releases_total{evicted}"):
        row(name, lambda each, name=name: int(each["counters"].get(f"berth_worker_{name}", 0)))  # type: ignore[misc]
    row("outputs compared with whole prompts", lambda each: each["verified"])
    row("memory at first, MiB", lambda each: each["series"][0]["rss_mib"])
    row("memory at a third, MiB", lambda each: each["series"][len(each["series"]) // 3]["rss_mib"])
    row("memory at last, MiB", lambda each: each["series"][-1]["rss_mib"])
    row(f"slope from there, MiB/h (limit {SLOPE_LIMIT_MIB_H:g})", lambda each: each["slope_mib_h"])
    row("descriptors with one client, most, with none", lambda each: " ".join(map(str, each["descriptors"].values())))
    row("tasks when idle, most, when idle again", lambda each: " ".join(map(str, each["tasks"].values())))
    row("threads, most", lambda each: max(sample["threads"] for sample in each["series"]))
    row("odd", lambda each: len(each["odd"]))
    say(table("One worker, by --check-memory", ("", *phases), rows))
    for name, each in phases.items():
        if each["series"][-1]["at_s"] < SLOPE_LEAST_S:
            say(f"{name}: too short for its slope to be judged")
        for text in each["odd"][:20]:
            say(f"odd ({name}): {text}")


def main() -> int:
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="berth-soak-worker-") as name:
        report = asyncio.run(soak(options, Path(name)))
    tell(report)
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text(json.dumps(report, indent=1))
    say(f"wrote {options.report}")
    return 1 if any(each["odd"] for each in report["phases"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
