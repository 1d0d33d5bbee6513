"""What the machine is, what it reads at most, and what processes have taken of it."""

from __future__ import annotations

import mmap
import os
import platform
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

HERTZ = os.sysconf("SC_CLK_TCK")
WITHIN_S = 0.3


def described() -> dict[str, Any]:
    """Where the numbers are from."""
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    return {"cpu": cpu.partition(": ")[2], "cores": os.cpu_count(), "python": platform.python_version()}


class Ceiling:
    """The speed at which `threads` threads read `size` bytes here and now: the fastest of many sums over them.

    Huge pages, where the machine has them for who asks: they are read about a quarter faster than small ones.
    """

    def __init__(self, size: int, threads: int) -> None:
        torch.set_num_threads(threads)
        self._memory = mmap.mmap(-1, size // 8 * 8)
        self._memory.madvise(mmap.MADV_HUGEPAGE)
        self._values = torch.frombuffer(self._memory, dtype=torch.float32)
        self._values.fill_(1)

    def measure(self) -> float:
        """Return bytes a second."""
        best, until = float("inf"), time.perf_counter() + WITHIN_S
        while time.perf_counter() < until:
            began = time.perf_counter()
            self._values.sum()
            best = min(best, time.perf_counter() - began)
        return len(self._memory) / best


def cpu_s(pids: Iterable[int]) -> float:
    """Seconds of processor time that living processes have taken, in user mode and in the kernel."""
    return sum(_ticks(Path(f"/proc/{pid}/stat").read_text()) for pid in pids) / HERTZ


def _ticks(stat: str) -> int:
    # After the name, which may hold anything: state is the third field, utime and stime are the 14th and 15th.
    fields = stat.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def peak_bytes(pids: Iterable[int]) -> int:
    """The most memory that each process has had resident, added up; pages that they share count in each."""
    return sum(_peak(Path(f"/proc/{pid}/status").read_text()) for pid in pids)


def _peak(status: str) -> int:
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])
