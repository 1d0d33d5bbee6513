"""How many streams one core carries: more and more, a token every 10 ms each, until the middle has no time left.

The load is made and counted by raw sockets, and the paced worker writes by callbacks: together they cost less than the
gateway, so that it is what gives way first. nginx may outlast them; its processor time a chunk tells what it could do.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

from ways import Post, Way, cpu_s, ways

from fleetkit.procs import until
from fleetkit.table import percentile, table

INTERVAL_MS = 10.0
STREAMS = (16, 32, 64, 128, 256)
SETTLE_S = 1.0
WINDOW_S = 2.0
_BEHIND = 0.95
"""Less than this share of what was offered came through: saturated."""
_STAMP = re.compile(rb'"text":"([0-9.]+) "')


@dataclass
class Count:
    """What all streams of one step received; nothing is counted outside its window."""

    counting: bool = False
    chunks: int = 0
    late_ms: list[float] = field(default_factory=list)
    flowing: int = 0
    """Streams that had their first token."""


class Stream(asyncio.Protocol):
    """One turn: sends it when connected, counts tokens as they come."""

    def __init__(self, post: Post, count: Count) -> None:
        self._post = post
        self._count = count
        self._begun = False
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        parts, post = urlsplit(self._post.url), self._post
        headers = {**post.headers, "Host": parts.netloc, "Content-Length": str(len(post.body))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        cast("asyncio.Transport", transport).write(f"POST {parts.path} HTTP/1.1\r\n{lines}\r\n".encode() + post.body)

    def data_received(self, data: bytes) -> None:
        at, count = time.monotonic(), self._count
        whole, _, self._rest = (self._rest + data).rpartition(b"\n\n")
        stamps = _STAMP.findall(whole)
        if stamps and not self._begun:
            self._begun = True
            count.flowing += 1
        if count.counting:
            count.chunks += len(stamps)
            count.late_ms += [1e3 * (at - float(stamp)) for stamp in stamps]


async def measure() -> dict[str, Any]:
    """Return each step of each way that has a middle: streams, chunks offered and delivered, its CPU, delays."""
    async with ways(INTERVAL_MS) as found:
        steps = {way.name: await _climb(way) for way in found if way.pid is not None}
    return {"interval_ms": INTERVAL_MS, "steps": steps}


async def _climb(way: Way) -> list[dict[str, float]]:
    steps: list[dict[str, float]] = []
    for streams in STREAMS:
        print(f"  {way.name}: {streams} streams", flush=True)
        steps.append(await _step(way, streams))
        if steps[-1]["delivered_s"] < _BEHIND * steps[-1]["offered_s"]:
            break
    return steps


async def _step(way: Way, streams: int) -> dict[str, float]:
    if way.pid is None:
        raise ValueError(f"{way.name} has no process to be measured")
    loop, count = asyncio.get_running_loop(), Count()
    most = round(1e3 * (SETTLE_S + 2 * WINDOW_S) / INTERVAL_MS) + streams
    transports = []
    for _ in range(streams):
        post = (await way.session())(most)
        parts = urlsplit(post.url)
        transport, _ = await loop.create_connection(lambda post=post: Stream(post, count), parts.hostname, parts.port)
        transports.append(transport)
    try:
        await until(lambda: count.flowing == streams, "the first token of every stream")
        await asyncio.sleep(SETTLE_S)
        count.counting, began, used = True, time.monotonic(), cpu_s(way.pid)
        await asyncio.sleep(WINDOW_S)
        count.counting, took, used = False, time.monotonic() - began, cpu_s(way.pid) - used
    finally:
        for transport in transports:
            transport.abort()
    return {
        "streams": streams,
        "offered_s": streams * 1e3 / INTERVAL_MS,
        "delivered_s": count.chunks / took,
        "core": used / took,
        "cpu_us": 1e6 * used / max(1, count.chunks),
        "late_p50_ms": percentile(count.late_ms, 0.5),
        "late_p99_ms": percentile(count.late_ms, 0.99),
    }


def show(found: dict[str, Any]) -> str:
    header = ("", "streams", "chunks/s", "delivered/s", "of a core", "CPU µs a chunk", "under way p50 ms", "p99 ms")
    rows = [
        (name, step["streams"], int(step["offered_s"]), int(step["delivered_s"]), *(step[key] for key in _COLUMNS))
        for name, steps in found["steps"].items()
        for step in steps
    ]
    most = [f"{name} {int(1e6 / steps[-1]['cpu_us'])}" for name, steps in found["steps"].items()]
    told = f"Chunks a second that one core would carry, by the last row of each: {', '.join(most)}."
    return f"{table('More and more streams through one process', header, rows)}\n\n{_MEANING} {told}"


_MEANING = f"""\
Every stream has a token each {INTERVAL_MS:g} ms, until less than {_BEHIND:.0%} of them come through. What arrives
together is read together, so a chunk costs less the busier a process is."""
_COLUMNS = ("core", "cpu_us", "late_p50_ms", "late_p99_ms")
