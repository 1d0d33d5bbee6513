"""nginx as a plain reverse proxy: what a hop costs where nothing is decided on the way, to hold the gateway against.

Taken from PATH, or else out of Debian's own packages into a folder of the user's cache, without installing anything.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fleetkit.procs import Process

_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "berth" / "nginx"
_CONFIG = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000;
    upstream worker {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 1000000; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://worker;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


def binary() -> str | None:
    """Return the program, fetched once where it is not installed; None: it cannot be had here."""
    found = shutil.which("nginx")
    kept = _CACHE / "usr" / "sbin" / "nginx"
    if found is None and not kept.exists() and shutil.which("apt-get") and shutil.which("dpkg"):
        _fetch()
    return found or (str(kept) if kept.exists() else None)


def _fetch() -> None:
    _CACHE.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(["apt-get", "-qq", "download", "nginx"], cwd=_CACHE, check=True, capture_output=True, timeout=60)
        for package in _CACHE.glob("nginx_*.deb"):
            subprocess.run(["dpkg", "-x", str(package), str(_CACHE)], check=True, capture_output=True, timeout=60)
    except (subprocess.SubprocessError, OSError) as error:
        print(f"  nginx cannot be fetched: {error}", file=sys.stderr)


@asynccontextmanager
async def before(upstream: int, folder: Path) -> AsyncIterator[tuple[int, str] | None]:
    """Run nginx, one process, before the port `upstream`; yield its pid and URL, or None where there is no nginx."""
    program = binary()
    if program is None:
        yield None
        return
    port = _free_port()
    config = _configured(folder, port, upstream)
    process = await Process.start("nginx", [program, "-p", str(folder), "-c", str(config)], folder / "nginx.log")
    try:
        await _listening(process, port)
        yield process.pid, f"http://127.0.0.1:{port}"
    finally:
        await process.stop()


async def _listening(process: Process, port: int) -> None:
    while process.returncode is None:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            await writer.wait_closed()
            return
    raise RuntimeError(f"nginx ended:\n{process.tail()}")


def _configured(folder: Path, port: int, upstream: int) -> Path:
    folder.mkdir()
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(folder=folder, port=port, upstream=upstream))
    return config


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
