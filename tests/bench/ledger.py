"""What the ledger costs: acquire + commit pairs at 1, 16 and 64 callers, and reading a long history.

    python tests/bench/ledger.py [--redis URL] [--seconds 3]

Starts a Redis of its own (AOF everysec, on a unix socket) unless told where one is. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import statistics
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import uvloop

from berth_api.public import Usage
from berth_api.wire import FinishReason
from berth_gateway.ledger.ledger import Ledger

CALLERS = (1, 16, 64)
TURN = b"\1\0\0\0" * 64
FINISH = FinishReason("length")


@contextlib.contextmanager
def own_redis() -> Iterator[str]:
    """Yield the URL of a Redis that lives as long as the bench."""
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None:
        raise SystemExit("no redis-server or valkey-server on PATH: name one with --redis URL")
    with tempfile.TemporaryDirectory(prefix="berth-bench-") as directory:
        socket = Path(directory) / "redis.sock"
        command = [binary, "--port", "0", "--unixsocket", str(socket), "--dir", directory, "--save", ""]
        process = subprocess.Popen([*command, "--appendonly", "yes"], stdout=subprocess.DEVNULL)
        try:
            while not socket.exists():
                if process.poll() is not None:
                    raise SystemExit("redis-server did not start")
                time.sleep(0.01)
            yield f"unix://{socket}"
        finally:
            process.terminate()
            process.wait()


async def turn(ledger: Ledger, name: str, number: int, ids: bytes) -> None:
    """One turn as the gateway makes it, without the worker."""
    acquired = await ledger.acquire("bench", name, f"t{number}", digest="d" * 64, input_tokens=32, lease_s=5)
    await ledger.commit(
        acquired.fence, parent=acquired.parent, ids=ids, input_tokens=32, finish=FINISH, usage=Usage(32, 32, 0)
    )


async def pairs(ledger: Ledger, callers: int, seconds: float) -> tuple[list[float], float, float]:
    """Return (seconds of each pair, wall, CPU) of `callers` sessions that take turns as fast as they can."""
    names = [f"c{callers}-{number}-{uuid.uuid4().hex[:8]}" for number in range(callers)]
    for name in names:
        await ledger.open("bench", name, str(uuid.uuid4()), fleet="bench")
    took: list[float] = []
    end = time.perf_counter() + seconds

    async def talk(name: str) -> None:
        number = 0
        while (began := time.perf_counter()) < end:
            await turn(ledger, name, number, TURN)
            took.append(time.perf_counter() - began)
            number += 1

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(talk(name) for name in names))
    return took, time.perf_counter() - wall, time.process_time() - cpu


async def long_history(ledger: Ledger, turns: int = 256, tokens: int = 512) -> tuple[float, float]:
    """Return median seconds to (append one more turn, read all) of a history of turns x tokens."""
    name, uid = f"long-{uuid.uuid4().hex[:8]}", str(uuid.uuid4())
    await ledger.open("bench", name, uid, fleet="bench")
    for number in range(turns):
        await turn(ledger, name, number, b"\1\0\0\0" * tokens)
    append, read = [], []
    for number in range(50):
        began = time.perf_counter()
        await turn(ledger, name, turns + number, b"\1\0\0\0" * tokens)
        append.append(time.perf_counter() - began)
        began = time.perf_counter()
        await ledger.history("bench", name, uid=uid)
        read.append(time.perf_counter() - began)
    return statistics.median(append), statistics.median(read)


async def main(url: str, seconds: float) -> None:
    ledger = Ledger.connect(url)
    await ledger.put_worker("bench", "w1", fleet="bench", url="http://w1", slots=1000, fingerprint="f")
    print("| callers | p50 ms | p99 ms | pairs/s | client CPU us a pair |\n| ---: | ---: | ---: | ---: | ---: |")
    for callers in CALLERS:
        took, wall, cpu = await pairs(ledger, callers, seconds)
        took.sort()
        p50, p99 = took[len(took) // 2] * 1e3, took[len(took) * 99 // 100] * 1e3
        print(f"| {callers} | {p50:.2f} | {p99:.2f} | {len(took) / wall:.0f} | {cpu / len(took) * 1e6:.0f} |")
    append, read = await long_history(ledger)
    print(f"\nhistory of 131,072 tokens in 256 turns: a turn's pair {append * 1e3:.2f} ms, all ids {read * 1e3:.2f} ms")
    await ledger.aclose()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="what the ledger costs")
    parser.add_argument("--redis", help="URL of a Redis to use (it is written to); default: one of its own")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each row is measured")
    chosen = parser.parse_args()
    with contextlib.nullcontext(chosen.redis) if chosen.redis else own_redis() as where:
        uvloop.run(main(where, chosen.seconds))
