"""The directory of a local fleet: its data, tokens, logs, and the file by which `berth top` and others find it.

One running fleet a directory, ensured by a lock that the kernel lets go of when the last holder is gone. Redis holds it
too: the directory is free only once nobody writes its data any more, even if `berth up` itself was killed.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from berth_operator.errors import StateDirInUse, StateDirUnusable

_TOKEN_BYTES = 32
_POLL_S = 0.05


class WorkerEntry(Struct, frozen=True):
    """A worker process: `pid` is the one that holds the engine."""

    id: str
    url: str
    pid: int


class GatewayEntry(Struct, frozen=True):
    url: str
    admin: str
    pid: int


class RedisEntry(Struct, frozen=True):
    url: str
    pid: int


class FleetFile(Struct, frozen=True):
    """`fleet.json`: what runs now. Only the owner may read it."""

    pid: int
    model: str
    namespace: str
    fleet: str
    redis: RedisEntry
    gateways: list[GatewayEntry]
    workers: list[WorkerEntry]
    admin_token_file: str
    worker_token_file: str


class StateDir:
    """An opened state directory; `close` frees it."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.lock = lock

    @classmethod
    async def open(cls, path: Path, patience_s: float) -> StateDir:
        """Make and lock the directory. Waits for a fleet that is just ending; raises StateDirInUse after that."""
        path, lock = _make(path)
        deadline = time.monotonic() + patience_s
        while not _try_lock(lock):
            if time.monotonic() >= deadline:
                holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
                os.close(lock)
                raise StateDirInUse(f"the state directory {path} is in use by another fleet (berth up, pid {holder})")
            await asyncio.sleep(_POLL_S)
        os.truncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        return cls(path, lock)

    @property
    def redis_data(self) -> Path:
        return self.path / "redis"

    def log(self, name: str) -> Path:
        """Return the file that a process writes its log to."""
        return self.path / "logs" / f"{name}.log"

    def new_token(self, name: str) -> Path:
        """Write a fresh random token; those of an earlier run are worth nothing any more."""
        path = self.path / f"{name}.token"
        _write_private(path, secrets.token_urlsafe(_TOKEN_BYTES).encode())
        return path

    def publish(self, fleet: FleetFile) -> None:
        """Replace `fleet.json` in one step: no reader sees half of it."""
        _write_private(_fleet_path(self.path), msgspec.json.format(msgspec.json.encode(fleet)) + b"\n")

    def close(self) -> None:
        """Withdraw `fleet.json` and free the directory."""
        with suppress(OSError):  # a file that stays names a fleet that has ended, which every reader finds out
            _fleet_path(self.path).unlink(missing_ok=True)
        os.close(self.lock)


def read_fleet(path: Path) -> FleetFile:
    """Return what runs from the directory. Raises StateDirUnusable when nothing does."""
    try:
        fleet = msgspec.json.decode(_fleet_path(path).read_bytes(), type=FleetFile)
        os.kill(fleet.pid, 0)
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
        raise StateDirUnusable(f"no fleet runs from the state directory {path}: start one with `berth up`") from None
    except OSError as error:
        raise StateDirUnusable(f"cannot read the state directory {path}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise StateDirUnusable(f"{_fleet_path(path)} is not a fleet's file: {error}") from error
    return fleet


def read_token(path: str) -> str:
    """Return the token that a fleet keeps in a file. Raises StateDirUnusable."""
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise StateDirUnusable(f"cannot read the token {path}: {error}") from error


def _make(path: Path) -> tuple[Path, int]:
    """Make the directory and what belongs in it; return its full path and the open lock file."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = path.resolve()
        (path / "logs").mkdir(exist_ok=True, mode=0o700)
        (path / "redis").mkdir(exist_ok=True, mode=0o700)
        return path, os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateDirUnusable(f"cannot use the state directory {path}: {error.strerror}") from error


def _fleet_path(path: Path) -> Path:
    return path / "fleet.json"


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_private(path: Path, data: bytes) -> None:
    """Raises StateDirUnusable."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.unlink(missing_ok=True)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
            file.write(data)
        draft.replace(path)
    except OSError as error:
        raise StateDirUnusable(f"cannot write {path}: {error.strerror}") from error
