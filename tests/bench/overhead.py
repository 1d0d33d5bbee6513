"""What the gateway adds to the first and to a later token: a paced worker asked directly and through it, in turns.

The worker (`paced_worker.py`) generates nothing and stamps each token, so what is left is the way: ledger, proxying,
events. Direct and proxied turns alternate, so that both see the same machine in the same second.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from berth_api import wire
from fleetkit.client import Client, greedy
from fleetkit.models import write_random_llama
from fleetkit.procs import Process, port_of
from fleetkit.proxy import Proxy
from fleetkit.rig import Rig, Worker
from fleetkit.table import percentile, table

HERE = Path(__file__).resolve().parent
TURNS = 300
WARM_UP = 30
TOKENS = 24
INPUT = [1] * 16


@dataclass
class Side:
    """One way to the worker: milliseconds to the first token, microseconds a later token was under way."""

    first_ms: list[float] = field(default_factory=list)
    later_us: list[float] = field(default_factory=list)

    def add(self, began: float, seen: list[tuple[float, str]]) -> None:
        """`seen`: each event's arrival and text, which holds the stamps of its tokens."""
        self.first_ms.append(1e3 * (seen[0][0] - began))
        self.later_us += [1e6 * (at - float(stamp)) for at, text in seen[1:] for stamp in text.split()]


async def measure() -> dict[str, Any]:
    """Return p50 and p99 of both ways."""
    with tempfile.TemporaryDirectory(prefix="berth-overhead-") as name:
        folder = Path(name)
        model = write_random_llama(folder / "model")
        rig = Rig(folder / "rig", str(model))
        command = [sys.executable, str(HERE / "paced_worker.py"), "--model", str(model)]
        process = await Process.start("paced", command, folder / "paced.log")
        try:
            ready = await process.ready()
            await rig.start_redis()
            await rig.add_gateways(1)
            # No proxy on these wires: it would be measured too.
            worker = Worker(process, ready["id"], ready["url"], Proxy(port_of(ready["url"])))
            await rig.register(worker)
            direct, proxied = await _alternate(ready, rig.gateways[0].url)
        finally:
            await process.stop()
            await rig.close()
    return {"direct": _figures(direct), "gateway": _figures(proxied), "turns": TURNS, "tokens": TOKENS}


async def _alternate(ready: dict[str, Any], gateway: str) -> tuple[Side, Side]:
    direct, proxied = Side(), Side()
    async with aiohttp.ClientSession() as http:
        client = Client(http, gateway)
        name = (await client.open())["name"]
        for number in range(TURNS + WARM_UP):
            sides = (Side(), Side()) if number < WARM_UP else (direct, proxied)
            await _direct(http, ready, sides[0])
            await _proxied(client, name, sides[1])
            if number % 100 == WARM_UP:
                print(f"  {number - WARM_UP} of {TURNS} turns", flush=True)
    return direct, proxied


async def _direct(http: aiohttp.ClientSession, ready: dict[str, Any], side: Side) -> None:
    order = wire.TurnRequest(
        session="default/direct",
        uid=str(uuid.uuid4()),
        turn=str(uuid.uuid4()),
        epoch=1,
        attempt=1,
        parent="",
        input_ids=struct.pack(f"<{len(INPUT)}i", *INPUT),
        seed=0,
        sampling=wire.Sampling(max_new_tokens=TOKENS, temperature=0, ignore_eos=True),
        fingerprint="paced",
    )
    headers = {"Content-Type": wire.TURN_CONTENT_TYPE, wire.WORKER_HEADER: ready["id"], wire.VERSION_HEADER: "1"}
    seen: list[tuple[float, str]] = []
    began = time.monotonic()
    async with http.post(f"{ready['url']}/generate", data=msgspec.msgpack.encode(order), headers=headers) as answer:
        rest = b""
        async for data in answer.content.iter_any():
            at = time.monotonic()
            *blocks, rest = (rest + data).split(b"\n\n")
            events = (msgspec.json.decode(block[6:]) for block in blocks)
            seen += [(at, event["text"]) for event in events if event["event"] == "tokens"]
    side.add(began, seen)


async def _proxied(client: Client, name: str, side: Side) -> None:
    began = time.monotonic()
    told = await client.turn(name, greedy(INPUT, TOKENS))
    side.add(began, [(event.at, event.data["text"]) for event in told.named("token")])


def _figures(side: Side) -> dict[str, float]:
    return {
        "first_p50_ms": percentile(side.first_ms, 0.5),
        "first_p99_ms": percentile(side.first_ms, 0.99),
        "later_p50_us": percentile(side.later_us, 0.5),
        "later_p99_us": percentile(side.later_us, 0.99),
    }


def show(found: dict[str, Any]) -> str:
    direct, gateway = found["direct"], found["gateway"]
    names = {
        "first token, ms": ("first_p50_ms", "first_p99_ms"),
        "a later token under way, µs": ("later_p50_us", "later_p99_us"),
    }
    rows = [
        (name, direct[p50], gateway[p50], gateway[p50] - direct[p50], gateway[p99] - direct[p99])
        for name, (p50, p99) in names.items()
    ]
    title = f"What the gateway adds ({found['turns']} turns each way, alternating; a token every 2 ms)"
    return table(title, ("", "direct p50", "gateway p50", "added p50", "added p99"), rows)


if __name__ == "__main__":
    print(show(asyncio.run(measure())))
