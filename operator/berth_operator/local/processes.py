"""Child processes that cannot outlive us, and that say for themselves when they are ready.

`berth up` may be killed in a way that lets it clean up nothing. So the kernel is asked, in the child and before its
program starts, to kill it when its parent dies (PR_SET_PDEATHSIG). That is tied to the *thread* that forked, which is
why children are started from the event loop's own thread and never from an executor.

Each child leads a process group of its own: a Ctrl-C in the terminal reaches us alone, and we decide the order of the
end; and what a child has started itself goes with it. Its end is noticed through a pidfd, before its pid can be reused.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)
_READ_BYTES = 65536
_TAIL_BYTES = 8192
"""How much of a log is read back to find the last words of a child."""


class Child:
    """One started process. `on_change` is called when it gets ready and when it ends.

    Its standard error, and what it prints beside the ready line, go to `log`. `keep` are descriptors it inherits.
    Raises OSError when the program cannot be started.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        on_change: Callable[[], None],
        keep: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.ready: dict[str, Any] | None = None
        self.returncode: int | None = None
        self.told_to_stop = False
        self._ended = asyncio.Event()
        self._on_change = on_change
        self._log = log
        self._log_start = log.stat().st_size if log.exists() else 0
        self._line = b""
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=sink,
                process_group=0,
                pass_fds=tuple(keep),
                # Only system calls between fork and exec: this process has a single thread that matters, the loop's.
                preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509
            )
        self._watch()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self.returncode is None

    def terminate(self) -> None:
        """Ask it to end."""
        self.told_to_stop = True
        if self.alive:
            self._process.terminate()

    def kill(self) -> None:
        """End it and all it has started, at once, even if it is stopped (SIGSTOP)."""
        self.told_to_stop = True
        self._kill_group()

    async def ended(self) -> None:
        """Wait for its end."""
        await self._ended.wait()

    async def end(self, grace_s: float) -> None:
        """Ask it to end, wait so long, then kill it. Cancelled, it kills at once."""
        self.terminate()
        try:
            async with asyncio.timeout(grace_s):
                await self.ended()
        except TimeoutError:
            self.kill()
            await self.ended()
        except asyncio.CancelledError:
            self.kill()
            raise

    def last_words(self) -> str:
        """Return the last line of its log since it was started: as a rule, why it ended."""
        with self._log.open("rb") as log:
            log.seek(max(self._log_start, self._log.stat().st_size - _TAIL_BYTES))
            lines = log.read().decode(errors="replace").split("\n")
        return next((_plain(line) for line in reversed(lines) if line.strip()), "it said nothing")

    def obituary(self) -> str:
        """Return how it ended, in words."""
        if self.returncode is None:
            return f"{self.name} (pid {self.pid}) is alive"
        if self.returncode < 0:
            return f"{self.name} (pid {self.pid}) was killed by {signal.Signals(-self.returncode).name}"
        return f"{self.name} (pid {self.pid}) exited with {self.returncode}: {self.last_words()}"

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        stdout = self._stdout
        os.set_blocking(stdout.fileno(), False)
        loop.add_reader(stdout.fileno(), self._read)
        pidfd = os.pidfd_open(self.pid)
        loop.add_reader(pidfd, self._reap, loop, pidfd)

    @property
    def _stdout(self) -> IO[bytes]:
        if self._process.stdout is None:
            raise RuntimeError("the child was started without a pipe")
        return self._process.stdout

    def _read(self) -> None:
        with suppress(BlockingIOError):
            data = os.read(self._stdout.fileno(), _READ_BYTES)
            if not data:
                asyncio.get_running_loop().remove_reader(self._stdout.fileno())
                return
            *lines, self._line = (self._line + data).split(b"\n")
            for line in lines:
                self._hear(line)

    def _hear(self, line: bytes) -> None:
        word = _ready_line(line) if self.ready is None else None
        if word is None:
            with self._log.open("ab") as log:
                log.write(line + b"\n")
            return
        self.ready = word
        self._on_change()

    def _reap(self, loop: asyncio.AbstractEventLoop, pidfd: int) -> None:
        # It is a zombie until it is waited for, so its group's number still means its group.
        self._kill_group()
        self.returncode = self._process.wait()
        self._read()
        loop.remove_reader(pidfd)
        os.close(pidfd)
        loop.remove_reader(self._stdout.fileno())
        self._stdout.close()
        self._ended.set()
        self._on_change()

    def _kill_group(self) -> None:
        if self.alive:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)


def _die_with(parent: int) -> Callable[[], None]:
    """Return what the child does first. The parent may have died before it came to ask for the signal."""

    def ask() -> None:
        if _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0 or os.getppid() != parent:
            os._exit(1)

    return ask


def _ready_line(line: bytes) -> dict[str, Any] | None:
    try:
        word = json.loads(line)
    except ValueError:
        return None
    return word if isinstance(word, dict) and word.get("event") == "ready" else None


def _plain(line: str) -> str:
    """Return a log line as a person would say it: a JSON line's message with its error."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line.strip()
    if not isinstance(entry, dict):
        return line.strip()
    parts = [str(entry[key]) for key in ("event", "message", "error") if entry.get(key)]
    return ": ".join(parts) or line.strip()
