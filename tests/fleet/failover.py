"""Streams broken by SIGKILL at random points, token for token against unfailed ones, and how long the client waited.

    python tests/fleet/failover.py --points 20 --seed 1

In fp32, half greedy and half sampled; every fourth turn is killed twice. Each id comes once and in order, the ids equal
the unfailed run's, and so do those of the turns after. Exit 1 where anything differs.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from fleetkit.client import Client, Streamed, greedy  # noqa: E402 - importable only from here on
from fleetkit.models import write_random_llama  # noqa: E402
from fleetkit.procs import kill  # noqa: E402
from fleetkit.sse import Event  # noqa: E402
from fleetkit.story import Body, Hook, same, turn, turns, words  # noqa: E402
from fleetkit.table import percentile, table  # noqa: E402
from fleetkit.up import LocalFleet  # noqa: E402

NEW_TOKENS = 120


@dataclass(frozen=True)
class Point:
    """Where one turn is hit: after so many ids at the client (once or twice), each a moment later."""

    seed: int
    greedy: bool
    kills: tuple[int, ...]
    delay_s: float


@dataclass
class Gap:
    """One death as the client felt it. Seconds; `recomputed`: tokens of the re-prefill."""

    total_s: float
    recomputed: int


@dataclass
class Result:
    point: Point
    gaps: list[Gap] = field(default_factory=list)
    fault: str = ""


def points(count: int, seed: int) -> list[Point]:
    """Random points, the same for the same seed."""
    dice = random.Random(f"failover-{seed}")
    made = []
    for number in range(count):
        kills = 2 if number % 4 == 3 else 1
        at = tuple(sorted(dice.sample(range(1, NEW_TOKENS - 10), kills)))
        made.append(Point(1000 * seed + number, number % 2 == 0, at, dice.uniform(0, 0.01)))
    return made


def _plan(point: Point) -> list[Body]:
    return turns(point.seed, new=NEW_TOKENS, count=4, greedily=point.greedy, prompt=40)


def _assassin(fleet: LocalFleet, point: Point, times: list[float]) -> Hook:
    """Kill whichever worker runs the turn when the client has that many ids."""
    left = list(point.kills)
    worker = ""

    async def hook(event: Event, seen: Streamed) -> None:
        nonlocal worker
        if event.name == "turn.started":
            worker = event.data["worker"]
        elif event.name == "turn.moved":
            worker = event.data["to"]
        elif left and len(seen.ids) >= left[0] and len(times) <= len(seen.named("turn.moved")):
            left.pop(0)
            await asyncio.sleep(point.delay_s)
            times.append(time.monotonic())
            kill(fleet.worker_pid(worker))

    return hook


def _gaps(seen: Streamed, times: Sequence[float]) -> list[Gap]:
    found = []
    for killed_at, moved in zip(times, seen.named("turn.moved"), strict=True):
        token = next(event for event in seen.named("token") if event.seq > moved.seq)
        found.append(Gap(token.at - killed_at, moved.data["recomputed_tokens"]))
    return found


async def strike(fleet: LocalFleet, client: Client, point: Point) -> Result:
    """One session, told once in peace and once under fire."""
    plan, times, result = _plan(point), list[float](), Result(point)
    peace = (await client.open())["name"]
    expected = [await client.turn(peace, body) for body in plan]
    name = (await client.open())["name"]
    told = [await client.turn(name, plan[0])]
    told.append(await turn(client, name, plan[1], _assassin(fleet, point, times)))
    told += [await client.turn(name, body) for body in plan[2:]]
    try:
        same(told, expected)
        result.gaps = _gaps(told[1], times)
        assert len(result.gaps) == len(point.kills), f"{len(result.gaps)} deaths of {len(point.kills)}"
    except (AssertionError, StopIteration, ValueError) as error:
        result.fault = str(error) or repr(error)
    return result


async def run(
    fleet: LocalFleet, client: Client, where: Sequence[Point], *, workers: int = 2, aloud: bool = False
) -> list[Result]:
    """Strike at every point; each finds the fleet whole."""
    results = []
    for number, point in enumerate(where, start=1):
        await fleet.whole(workers)
        results.append(await strike(fleet, client, point))
        if aloud:
            waited = ", ".join(f"{1000 * gap.total_s:.0f} ms" for gap in results[-1].gaps)
            verdict = results[-1].fault or "equal"
            print(f"{number:3} of {len(where)}  killed at {point.kills}: {verdict}  {waited}", flush=True)
    return results


async def prefill_s(client: Client, tokens: int) -> float:
    """Return what a prompt of so many tokens takes longer than one of a single token, here and now."""

    async def first_token(length: int) -> float:
        took = []
        for _ in range(5):
            name = (await client.open())["name"]
            began = time.monotonic()
            seen = await client.turn(name, greedy(words(length, length), 1))
            took.append(seen.named("token")[0].at - began)
        return statistics.median(took)

    return max(0.0, await first_token(tokens) - await first_token(1))


def summary(results: Sequence[Result], prefill: float = 0.0) -> dict[str, Any]:
    """p50 and p99 in milliseconds; `prefill` is the re-prefill's part in seconds, which was measured apart."""
    gaps = [gap for result in results for gap in result.gaps]
    totals = [1000 * gap.total_s for gap in gaps]
    parts = {
        "kill to next token": totals,
        "beyond the re-prefill": [total - 1000 * prefill for total in totals],
    }
    return {
        "prefill_ms": 1000 * prefill,
        "turns": len(results),
        "equal": sum(not result.fault for result in results),
        "deaths": len(gaps),
        "recomputed_tokens_p50": percentile([gap.recomputed for gap in gaps], 0.5),
        "ms": {
            name: {"p50": percentile(values, 0.5), "p99": percentile(values, 0.99), "worst": max(values)}
            for name, values in parts.items()
        },
    }


def show(found: dict[str, Any]) -> str:
    """The summary as a table."""
    turns_told = f"{found['equal']} of {found['turns']} turns equal to the unfailed run"
    title = f"Failover: {found['deaths']} deaths, {turns_told}"
    rows = [(name, values["p50"], values["p99"], values["worst"]) for name, values in found["ms"].items()]
    apart = f"re-prefill of {found['recomputed_tokens_p50']} tokens, measured apart"
    return table(title, ("ms", "p50", "p99", "worst"), [*rows, (apart, found["prefill_ms"], "", "")])


async def measure(count: int, seed: int, *, workers: int = 3) -> tuple[list[Result], dict[str, Any]]:
    """Start a fleet, strike, and sum up. Three workers: the second death of a turn finds one that is well."""
    with tempfile.TemporaryDirectory(prefix="berth-failover-") as folder:
        model = write_random_llama(Path(folder) / "model")
        args = ["--dtype", "float32", "--threads", "1"]
        fleet = await LocalFleet.start(Path(folder), model=str(model), workers=workers, args=args)
        try:
            async with aiohttp.ClientSession() as http:
                client = Client(http, fleet.gateway)
                results = await run(fleet, client, points(count, seed), workers=workers, aloud=True)
                typical = percentile([gap.recomputed for result in results for gap in result.gaps], 0.5)
                await fleet.whole(workers)
                prefill = await prefill_s(client, int(typical))
        finally:
            await fleet.close()
    return results, summary(results, prefill)


def main() -> int:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--points", type=int, default=20)
    flags.add_argument("--seed", type=int, default=1)
    options = flags.parse_args()
    results, found = asyncio.run(measure(options.points, options.seed))
    print(show(found))
    return 1 if any(result.fault for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
