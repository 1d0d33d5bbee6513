"""A real Redis for every test that wants one, and a proxy that loses things on the way to it.

Nothing here listens on a port: servers and proxies live on unix sockets in directories of their own, so runs side by
side never meet.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis
from hypothesis import settings

# One compute thread a process, before anything loads torch: several processes at once that each spin on all cores take
# many times as long. Children inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Benchmarks measure time; no test fails on a busy machine for that.
settings.register_profile("timeless", parent=settings.default, deadline=None)
settings.load_profile("timeless")

READY_S = 10.0
"""A loaded machine may take seconds to start a process."""


@dataclass
class RedisServer:
    """A Redis of ours, with AOF, that may be killed and started again on the same data."""

    directory: Path
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.directory / "redis.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        command = [redis_binary(), "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.directory)]
        # fsync is left to the kernel: with `everysec` Redis may hold back writes for up to 2 s while a slow disk syncs,
        # and a SIGKILL then loses what it acknowledged. What these tests kill is the process, not the machine.
        command += ["--appendonly", "yes", "--appendfsync", "no", "--save", "", "--enable-debug-command", "yes"]
        log = (self.directory / "redis.log").open("ab")
        with log:
            self.process = subprocess.Popen([*command, *self.options], stdout=log, stderr=log)
        self.wait()

    def wait(self) -> None:
        """Return once it answers (a restarted one first loads its file)."""
        deadline = time.monotonic() + READY_S
        while True:
            with contextlib.suppress(redis.RedisError), self.client() as client:
                client.ping()
                return
            if time.monotonic() > deadline or self.process is None or self.process.poll() is not None:
                pytest.fail((self.directory / "redis.log").read_text()[-2000:])
            time.sleep(0.01)

    def client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket))

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL: what was written but not yet synced stays with the kernel, so it survives."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def restart(self) -> None:
        self.kill()
        self.start()

    def stop(self) -> None:
        if self.process is not None:
            self.resume()
            self.process.terminate()
            self.process.wait()


def redis_binary() -> str:
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        pytest.fail("tests need redis-server or valkey-server on PATH, or REDIS_URL")
    return found


@contextlib.contextmanager
def started(*options: str):
    directory = Path(tempfile.mkdtemp(prefix="berth-redis-"))
    server = RedisServer(directory, options)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def redis_server():
    """One server for the run. Tests that kill, stop or restore it take `own_redis` instead."""
    with started() as server:
        yield server


@pytest.fixture
def redis_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database: on REDIS_URL (one database a test process), else on a server of ours."""
    url = os.environ.get("REDIS_URL")
    if url is None:
        url = request.getfixturevalue("redis_server").url
    else:
        process = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
        url = f"{url.rstrip('/')}/{int(process.removeprefix('gw'))}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture
def own_redis():
    """A server for this test alone."""
    with started() as server:
        yield server


@pytest.fixture
def start_redis():
    """Start servers for this test alone: `start_redis("--maxmemory", "1mb")`."""
    with contextlib.ExitStack() as stack:
        yield lambda *options: stack.enter_context(started(*options))


@dataclass
class ChaosProxy:
    """Between a client and a unix-socket server: forwards, until told to lose something."""

    path: Path
    upstream: str
    lose_replies: int = 0
    """So many times more: let a script act, then cut the connection instead of delivering the reply."""
    lost: int = 0
    black_hole: bool = False
    """Swallow requests; connections stay open and nothing ever comes back."""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = await asyncio.open_unix_connection(self.upstream)
        asked = asyncio.Event()
        pumps = [
            asyncio.create_task(self.requests(reader, wire[1], asked)),
            asyncio.create_task(self.replies(wire[0], writer, asked)),
        ]
        self.tasks.update(pumps)
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        self.tasks.difference_update(pumps)
        writer.close()
        wire[1].close()

    async def requests(self, reader: asyncio.StreamReader, up: asyncio.StreamWriter, asked: asyncio.Event) -> None:
        while data := await reader.read(1 << 16):
            if b"EVAL" in data:
                asked.set()
            if not self.black_hole:
                up.write(data)
                await up.drain()

    async def replies(self, up: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: asyncio.Event) -> None:
        while data := await up.read(1 << 16):
            if self.lose_replies and asked.is_set() and b"NOSCRIPT" not in data:
                self.lose_replies -= 1
                self.lost += 1
                return
            writer.write(data)
            await writer.drain()


@pytest.fixture
async def chaos_proxy(redis_server: RedisServer, redis_url: str):
    """A proxy before `redis_url` (a server of ours, never REDIS_URL)."""
    if redis_url != redis_server.url:
        pytest.skip("the proxy stands before a server of ours")
    directory = Path(tempfile.mkdtemp(prefix="berth-chaos-"))
    proxy = ChaosProxy(directory / "chaos.sock", str(redis_server.socket))
    server = await asyncio.start_unix_server(proxy.serve, proxy.path)
    try:
        yield proxy
    finally:
        server.close()
        for task in list(proxy.tasks):
            task.cancel()
        await asyncio.gather(*proxy.tasks, return_exceptions=True)
        shutil.rmtree(directory, ignore_errors=True)
