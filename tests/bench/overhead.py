"""What the gateway adds to the first and to a later token, beside what nginx adds as a plain reverse proxy.

The worker (`paced_worker.py`) generates nothing and stamps each token, so what is left is the way: ledger, proxying,
events. Turns by all ways alternate, so that each sees the same machine in the same second, and one client reads them
all: what it costs itself is in every figure and falls out of the differences.

    python tests/bench/overhead.py      by itself; part of tests/bench/run.py
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "fleet")]

import saturation  # noqa: E402 - importable only from here on
from ways import Post, ways  # noqa: E402

from fleetkit.table import percentile, table  # noqa: E402

TURNS = 300
WARM_UP = 30
TOKENS = 24
INTERVAL_MS = 2.0
_STAMP = re.compile(rb'"text":"([0-9.]+) "')


@dataclass
class Side:
    """One way to the worker: milliseconds to the first token, microseconds a later token was under way."""

    first_ms: list[float] = field(default_factory=list)
    later_us: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        return {
            "first_p50_ms": percentile(self.first_ms, 0.5),
            "first_p99_ms": percentile(self.first_ms, 0.99),
            "later_p50_us": percentile(self.later_us, 0.5),
            "later_p99_us": percentile(self.later_us, 0.99),
        }


async def measure() -> dict[str, Any]:
    """Return p50 and p99 of all ways, and what their middle bears."""
    async with ways(INTERVAL_MS) as found, aiohttp.ClientSession() as http:
        sides = {way.name: Side() for way in found}
        makers = {way.name: await way.session() for way in found}
        for number in range(TURNS + WARM_UP):
            for name, make in makers.items():
                await _turn(http, make(TOKENS), Side() if number < WARM_UP else sides[name])
            if number % 100 == WARM_UP:
                print(f"  {number - WARM_UP} of {TURNS} turns", flush=True)
    latency = {name: side.figures() for name, side in sides.items()}
    return {"latency": latency, "turns": TURNS, "tokens": TOKENS, "saturation": await saturation.measure()}


async def _turn(http: aiohttp.ClientSession, post: Post, side: Side) -> None:
    first = True
    began = time.monotonic()
    async with http.post(post.url, data=post.body, headers=post.headers) as answer:
        if answer.status != 200:
            raise RuntimeError(f"{post.url}: {answer.status} {await answer.text()}")
        rest = b""
        async for data in answer.content.iter_any():
            at = time.monotonic()
            *events, rest = (rest + data).split(b"\n\n")
            for event in events:
                if post.token not in event:
                    continue
                if first:
                    side.first_ms.append(1e3 * (at - began))
                    first = False
                elif stamp := _STAMP.search(event):
                    side.later_us.append(1e6 * (at - float(stamp[1])))


def show(found: dict[str, Any]) -> str:
    latency = found["latency"]
    direct = latency["direct"]
    between = [name for name in latency if name != "direct"]
    names = {
        "first token p50, ms": "first_p50_ms",
        "… p99, ms": "first_p99_ms",
        "a later token under way p50, µs": "later_p50_us",
        "… p99, µs ": "later_p99_us",
    }
    header = ["", "direct", *(text for name in between for text in (name, f"{name} adds"))]
    rows = [
        [
            text,
            direct[key],
            *(value for way in between for value in (latency[way][key], latency[way][key] - direct[key])),
        ]
        for text, key in names.items()
    ]
    title = f"What the gateway adds ({found['turns']} turns each way, alternating; a token every {INTERVAL_MS:g} ms)"
    absent = "" if "nginx" in latency else " There is no nginx here to compare with: none on PATH, none to be fetched."
    return f"{table(title, header, rows)}\n\n{_MEANING}{absent}\n{saturation.show(found['saturation'])}"


_MEANING = """\
One worker that generates nothing stamps each token as it writes it. The same client asks it directly, through nginx
(a plain reverse proxy, `proxy_buffering off`, one process) and through a gateway whose Redis keeps an AOF (everysec).
nginx forwards bytes; the gateway takes the right to the turn from the ledger before it asks the worker, which is in its
first token, and checks, counts and names every token, which is in the later ones."""


if __name__ == "__main__":
    print(show(asyncio.run(measure())))
