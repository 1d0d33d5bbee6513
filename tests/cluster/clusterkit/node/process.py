"""One process of a container: started at once, its end noticed at once, its output in a file."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from clusterkit.processes import kill_group, spawn

_KILLED = 128
"""A process that a signal ended has this exit code plus the signal's number, as container runtimes count."""


class Process:
    """Leads a group of its own, which ends with it. Raises OSError when the program cannot be started.

    The start does not wait, so that whoever decides to stop a container never does so between two of its halves.
    """

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], folder: Path, log: Path) -> None:
        with log.open("ab") as sink:
            self._process = spawn(command, stdout=sink, stderr=sink, env=env, cwd=folder)
        self.ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._pidfd = os.pidfd_open(self.pid)
        self._loop.add_reader(self._pidfd, self._reap)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int:
        """128 + n where signal n ended it. Only after its end."""
        code = self._process.returncode
        assert code is not None
        return code if code >= 0 else _KILLED - code

    def send(self, number: int) -> None:
        """Send a signal to the process, not to its group: as a runtime does to a container's first process."""
        if not self.ended.is_set():
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to all of the group."""
        if not self.ended.is_set():
            kill_group(self.pid)

    async def end(self, deadline: Deadline) -> None:
        """SIGTERM, and SIGKILL when the deadline passes."""
        self.send(signal.SIGTERM)
        await deadline.wait(self.ended)
        self.kill()
        await self.ended.wait()

    def _reap(self) -> None:
        # A zombie until it is waited for, so its group's number still means its group.
        kill_group(self.pid)
        self._process.wait()
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.ended.set()


class Deadline:
    """A moment that may come nearer while it is waited for, as when a pod is deleted a second time."""

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._at = self._loop.time() + seconds
        self._moved = asyncio.Event()

    @property
    def left(self) -> float:
        return max(0.0, self._at - self._loop.time())

    def shorten(self, seconds: float) -> None:
        """Let it be no later than so long from now."""
        self._at = min(self._at, self._loop.time() + seconds)
        self._moved.set()

    def extend(self, seconds: float) -> None:
        """Let it be no earlier than so long from now."""
        self._at = max(self._at, self._loop.time() + seconds)

    async def wait(self, event: asyncio.Event) -> bool:
        """Wait for the event until the deadline; return whether it came."""
        happened = asyncio.create_task(event.wait())
        try:
            while self.left and not event.is_set():
                self._moved.clear()
                moved = asyncio.create_task(self._moved.wait())
                await asyncio.wait({happened, moved}, timeout=self.left, return_when=asyncio.FIRST_COMPLETED)
                moved.cancel()
        finally:
            happened.cancel()
        return event.is_set()
