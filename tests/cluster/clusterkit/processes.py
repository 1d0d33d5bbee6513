"""Children that end with this process, whatever ends it, and whose last words can be read."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_PORTS = range(20_000, 32_000)
"""Below the ports that Linux gives to outgoing connections, which would take a free one away before it is used."""


def spawn(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a process that leads a group of its own and is killed when the thread that starts it is gone.

    `options` are Popen's own. Raises OSError when the program cannot be started.
    """
    parent = os.getpid()

    def die_with_parent() -> None:
        # The parent may have died before its child came to ask for the signal.
        if _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0 or os.getppid() != parent:
            os._exit(1)

    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        process_group=0,
        preexec_fn=die_with_parent,  # noqa: PLW1509 - only system calls between fork and exec
        **options,
    )


def kill_group(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to a child that leads its group, and to all it has started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on now."""
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError(f"no free port in {_PORTS}")


def tail(log: Path, lines: int = 30) -> str:
    """Return the last lines of a log; "" where there is none yet."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 64 * 1024))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])


class Child:
    """One process that writes to a log. It may be killed and started again with the same command."""

    def __init__(self, name: str, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._env = None if env is None else {**os.environ, **env}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        with self.log.open("ab") as sink:
            self._process = spawn(self._command, stdout=sink, stderr=sink, env=self._env)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        if self._process is not None:
            if self.alive:
                kill_group(self.pid)
            self._process.wait()

    def stop(self, grace_s: float = 5.0) -> None:
        """SIGTERM, and SIGKILL where that is not enough."""
        if self._process is not None and self.alive:
            kill_group(self.pid, signal.SIGCONT)
            kill_group(self.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_s)
        self.kill()

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def last_words(self, lines: int = 30) -> str:
        status = "alive" if self.alive else f"ended with {self._process.poll() if self._process else 'no start'}"
        return f"--- {self.name} ({status}), end of {self.log}\n{tail(self.log, lines)}"
