"""The ledger's own bench (`ledger.py`) as a part of the whole run: the same measurement, its numbers kept."""

from __future__ import annotations

from typing import Any

import ledger

from berth_gateway.ledger.ledger import Ledger
from fleetkit.table import percentile, table

SECONDS = 3.0


async def measure() -> dict[str, Any]:
    """acquire + commit pairs by callers, and a long history, on a Redis of its own."""
    rows = []
    with ledger.own_redis() as url:
        books = Ledger.connect(url)
        await books.put_worker("bench", "w1", fleet="bench", url="http://w1", slots=1000, fingerprint="f")
        for callers in ledger.CALLERS:
            took, wall, cpu = await ledger.pairs(books, callers, SECONDS)
            times = {"p50_ms": 1e3 * percentile(took, 0.5), "p99_ms": 1e3 * percentile(took, 0.99)}
            rows.append({"callers": callers, **times, "pairs_s": len(took) / wall, "cpu_us": 1e6 * cpu / len(took)})
        append, read = await ledger.long_history(books)
        await books.aclose()
    return {"rows": rows, "long_history": {"append_ms": 1e3 * append, "read_ms": 1e3 * read}}


def show(found: dict[str, Any]) -> str:
    rows = [(row["callers"], row["p50_ms"], row["p99_ms"], int(row["pairs_s"]), row["cpu_us"]) for row in found["rows"]]
    header = ("callers", "p50 ms", "p99 ms", "pairs/s", "client CPU µs")
    long = found["long_history"]
    after = f"\n\nWith 131,072 tokens in 256 turns: a pair {long['append_ms']:.2f} ms, all ids {long['read_ms']:.2f} ms"
    return table("acquire + commit, Redis with AOF everysec", header, rows) + after
