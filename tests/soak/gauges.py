"""A process from outside, sampled: resident memory, descriptors, threads; and what its memory is heading for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fleetkit.native import Native


def resident_mib(pid: int) -> float:
    """Resident memory in MiB, without file pages: what the process itself has allocated."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


async def tasks(worker: Native) -> int:
    """Tasks of the worker's event loop, one for each open connection among them."""
    return int((await worker.metrics())["berth_worker_tasks"])


def slope_mib_h(series: Sequence[dict[str, Any]]) -> float:
    """MiB an hour that resident memory grows by: least squares over the last two thirds of `series`."""
    late = series[len(series) // 3 :]
    if len(late) < 2:
        return 0.0
    hours = [each["at_s"] / 3600 for each in late]
    return float(np.polyfit(hours, [each["rss_mib"] for each in late], 1)[0])


@dataclass
class Gauges:
    """Samples a worker until cancelled; `series` has one entry a look, `at_s` seconds from the first."""

    worker: Native
    every_s: float
    series: list[dict[str, Any]] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(self.every_s)

    async def look(self) -> dict[str, Any]:
        """Take one sample."""
        memory, pid = await self.worker.memory(), self.worker.process.pid
        rows = memory.pop("rows")
        found = {"at_s": time.monotonic() - self._began, "rss_mib": resident_mib(pid), "descriptors": descriptors(pid)}
        found |= {
            "threads": threads(pid),
            "tasks": await tasks(self.worker),
            **memory,
            "rows_free": rows["free"],
            "rows_total": rows["total"],
        }
        self.series.append(found)
        return found
