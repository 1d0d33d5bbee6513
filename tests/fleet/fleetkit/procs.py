"""Real processes: start them, read their ready lines, find them by port, and send them real signals.

Everything goes by pid and /proc, so that nothing here needs the good will of what is being tested.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1

LISTEN = "0A"
"""TCP_LISTEN as /proc/net/tcp writes it."""


def _die_with_parent() -> None:
    """In a new child: a test run that is killed leaves nothing behind."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


_DOOMED: set[int] = set()
"""Pids sent SIGKILL: the kernel may take seconds to tear a large process down, but it runs no more."""


def alive(pid: int) -> bool:
    """Whether `pid` runs (a zombie does not, nor one that was killed and is not gone yet)."""
    if pid in _DOOMED:
        return False
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal; a process that is gone already is no error."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    if number == signal.SIGKILL:
        _DOOMED.add(pid)


def children(pid: int) -> list[int]:
    """Every live descendant of `pid`, parents before children."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, queue = [], [pid]
    while queue:
        below = parents.get(queue.pop(0), [])
        found += below
        queue += below
    return found


def _inodes_listening(port: int) -> set[str]:
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(FileNotFoundError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    return inodes


def listener(port: int) -> int:
    """Return the pid that listens on a TCP port of this machine. Raises LookupError where nobody does."""
    inodes = _inodes_listening(port)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, PermissionError, ProcessLookupError):
                if any(str(fd.readlink()) in inodes for fd in (entry / "fd").iterdir()):
                    return int(entry.name)
    raise LookupError(f"no process listens on port {port}")


def port_of(url: str) -> int:
    """Return the port of `scheme://host:port[/…]`."""
    return int(url.split("://", 1)[1].split("/", 1)[0].rpartition(":")[2])


async def until(condition: Callable[[], Any], what: str, timeout_s: float = 30.0, every_s: float = 0.02) -> Any:
    """Poll until `condition()` is truthy and return that; TimeoutError names `what` otherwise.

    Time counts by polls, not by the clock: this loop stands still while tests with loops of their own run.
    """
    for _ in range(max(1, round(timeout_s / every_s))):
        if value := condition():
            return value
        await asyncio.sleep(every_s)
    raise TimeoutError(f"not within {timeout_s:g} s: {what}")


class Process:
    """One child with JSON lines on stdout; stderr goes to a file that a failure may quote."""

    def __init__(self, name: str, inner: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.log = log
        self.lines: list[dict[str, Any]] = []
        self._inner = inner
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(
        cls, name: str, command: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None
    ) -> Process:
        """Start `command`; `env` adds to this process's own environment."""
        with log.open("ab") as stderr:
            inner = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                env=None if env is None else {**os.environ, **env},
                limit=1 << 24,
                preexec_fn=_die_with_parent,
            )
        _DOOMED.discard(inner.pid)  # the number may have been another's
        return cls(name, inner, log)

    @property
    def pid(self) -> int:
        return self._inner.pid

    @property
    def returncode(self) -> int | None:
        return self._inner.returncode

    async def _read(self) -> None:
        assert self._inner.stdout is not None
        async for line in self._inner.stdout:
            with contextlib.suppress(json.JSONDecodeError):
                if isinstance(found := json.loads(line), dict):
                    self.lines.append(found)

    async def ready(self, timeout_s: float = 60.0) -> dict[str, Any]:
        """Return the ready line; RuntimeError with the end of the log when the process ends instead."""

        def look() -> dict[str, Any] | None:
            found = next((line for line in self.lines if line.get("event") == "ready"), None)
            if found is None and self.returncode is not None:
                raise RuntimeError(f"{self.name} ended with {self.returncode} before it was ready:\n{self.tail()}")
            return found

        try:
            found: dict[str, Any] = await until(look, f"the ready line of {self.name}", timeout_s)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.tail()}") from None
        return found

    def tail(self, lines: int = 30) -> str:
        """The last lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    async def stop(self, number: int = signal.SIGTERM, timeout_s: float = 15.0) -> int:
        """Signal, wait, kill when that was not enough; returns the exit status."""
        if self.returncode is None:
            kill(self.pid, signal.SIGCONT)
            kill(self.pid, number)
        try:
            await asyncio.wait_for(self._inner.wait(), timeout_s)
        except TimeoutError:
            kill(self.pid)
            await self._inner.wait()
        await self._reader
        return await self._inner.wait()
