"""A fleet wired by hand: Redis, gateways and workers as bare processes with a proxy on every wire.

`berth up` decides by itself when to restart what; a fault at an exact moment needs a fleet in which nothing moves but
what the test moves. Gateway n reaches Redis through `gateways[n].wire`, every gateway reaches worker m through
`workers[m].wire`.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from fleetkit.procs import Process, alive, kill, port_of
from fleetkit.proxy import Proxy


@dataclass
class Worker:
    """A worker process; the fleet knows it by the proxy's address."""

    process: Process
    id: str
    url: str
    wire: Proxy

    @property
    def pid(self) -> int:
        return self.process.pid


@dataclass
class Gateway:
    """A gateway process; `wire` is its way to Redis."""

    process: Process
    url: str
    admin: str
    wire: Proxy

    @property
    def pid(self) -> int:
        return self.process.pid


@dataclass
class Rig:
    """Starts, kills and replaces parts. `worker_args` and `gateway_args` are the parts' own flags."""

    folder: Path
    model: str
    worker_args: Sequence[str] = ()
    gateway_args: Sequence[str] = ()
    gateway_env: Mapping[str, str] = field(default_factory=dict)
    direct: bool = False
    """Gateways reach Redis without a proxy, which shares a processor with the test: where nothing is to break."""
    workers: list[Worker] = field(default_factory=list)
    gateways: list[Gateway] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.redis: Process | None = None
        self._spare: asyncio.Task[Worker] | None = None
        self.redis_port = _free_port()
        self._count = 0
        self._tokens = {name: secrets.token_urlsafe(16) for name in ("admin", "worker")}
        for name, token in self._tokens.items():
            path = self.folder / f"{name}.token"
            path.write_text(token)
            path.chmod(0o600)

    # --- Redis

    @property
    def redis_folder(self) -> Path:
        return self.folder / "redis"

    async def start_redis(self) -> None:
        """Start Redis on its fixed port with AOF everysec and wait until it answers."""
        server = shutil.which("redis-server")
        if server is None:
            raise RuntimeError("redis-server is not on PATH")
        self.redis_folder.mkdir(exist_ok=True)
        options = ["--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction"]
        command = [server, "--port", str(self.redis_port), "--bind", "127.0.0.1", "--dir", str(self.redis_folder)]
        self.redis = await Process.start("redis", [*command, "--save", "", *options], self.folder / "redis.log")
        while not await self._redis_answers():
            if self.redis.returncode is not None:
                raise RuntimeError(f"redis-server ended:\n{self.redis.tail()}")
            await asyncio.sleep(0.02)

    async def _redis_answers(self) -> bool:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.redis_port)
            writer.write(b"PING\r\n")
            answer = await reader.readline()
            writer.close()
            await writer.wait_closed()
            return answer == b"+PONG\r\n"
        return False

    async def stop_redis(self, number: int = signal.SIGKILL) -> None:
        assert self.redis is not None
        await self.redis.stop(number)

    # --- workers

    def keep_spare(self) -> None:
        """Have one worker come up beside what goes on now: its start takes longer than most tests."""
        self._spare = self._spare or asyncio.create_task(self.launch_worker())

    async def _next_worker(self) -> Worker:
        spare, self._spare = self._spare, None
        return await (spare or self.launch_worker())

    async def launch_worker(self) -> Worker:
        """Start a worker and its proxy, without telling the fleet."""
        self._count += 1
        name = f"worker-{self._count}"
        command = [sys.executable, "-m", "berth_worker", "--model", self.model, "--port", "0"]
        command += ["--token-file", str(self.folder / "worker.token"), "--pod-uid", name, *self.worker_args]
        process = await Process.start(name, command, self.folder / f"{name}.log")
        try:
            ready = await process.ready()
        except BaseException:
            await process.stop(signal.SIGKILL)
            raise
        wire = await Proxy(port_of(ready["url"])).start()
        return Worker(process, ready["id"], f"http://127.0.0.1:{wire.port}", wire)

    async def add_workers(self, count: int = 1) -> list[Worker]:
        """Start workers side by side and register them."""
        new = await asyncio.gather(*(self._next_worker() for _ in range(count)))
        for worker in new:
            await self.register(worker)
        self.workers += new
        return list(new)

    async def register(self, worker: Worker, *, cordoned: bool = False) -> None:
        body = {"namespace": "default", "fleet": "default", "url": worker.url, "cordoned": cordoned}
        await self.admin("PUT", f"/admin/workers/{worker.id}", body)

    async def remove(self, worker: Worker) -> None:
        """Kill a worker and have the fleet forget it."""
        kill(worker.pid)
        await self.admin("DELETE", f"/admin/workers/{worker.id}")
        await worker.process.stop(signal.SIGKILL)
        await worker.wire.close()
        self.workers.remove(worker)

    def worker(self, worker_id: str) -> Worker:
        return next(worker for worker in self.workers if worker.id == worker_id)

    def others(self, worker: Worker) -> list[Worker]:
        return [other for other in self.workers if other is not worker]

    # --- gateways

    async def launch_gateway(self, *args: str) -> Gateway:
        """Start a gateway with a proxy before Redis; with `args` after the rig's own."""
        self._count += 1
        name = f"gateway-{self._count}"
        wire = await Proxy(self.redis_port).start()
        redis = self.redis_port if self.direct else wire.port
        command = [sys.executable, "-m", "berth_gateway", "--redis", f"redis://127.0.0.1:{redis}/0", "--no-auth"]
        command += ["--port", "0", "--admin-port", "0", "--admin-token-file", str(self.folder / "admin.token")]
        command += ["--worker-token-file", str(self.folder / "worker.token"), *self.gateway_args, *args]
        process = await Process.start(name, command, self.folder / f"{name}.log", env=self.gateway_env)
        ready = await process.ready()
        return Gateway(process, ready["url"].rstrip("/"), ready["admin"].rstrip("/"), wire)

    async def add_gateways(self, count: int = 1) -> list[Gateway]:
        new = await asyncio.gather(*(self.launch_gateway() for _ in range(count)))
        self.gateways += new
        return list(new)

    async def drop_gateway(self, gateway: Gateway) -> None:
        """Kill a gateway; what its proxy held is lost."""
        kill(gateway.pid)
        await gateway.process.stop(signal.SIGKILL)
        await gateway.wire.close()
        if gateway in self.gateways:
            self.gateways.remove(gateway)

    async def revive_gateway(self, dropped: Gateway) -> Gateway:
        """Start another gateway where a dropped one was: whoever knows its addresses finds this one."""
        ports = ("--port", str(port_of(dropped.url)), "--admin-port", str(port_of(dropped.admin)))
        self.gateways.append(gateway := await self.launch_gateway(*ports))
        return gateway

    async def admin(self, method: str, path: str, body: object = None) -> object:
        """Call the admin API of the first living gateway; RuntimeError on a refusal."""
        gateway = next(gateway for gateway in self.gateways if alive(gateway.pid))
        headers = {"Authorization": f"Bearer {self._tokens['admin']}"}
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.request(method, gateway.admin + path, json=body) as answer,
        ):
            text = await answer.text()
            if answer.status >= 400:
                raise RuntimeError(f"{method} {path}: {answer.status} {text}\n{gateway.process.tail()}")
            return await answer.json(content_type=None) if text else None

    @property
    def worker_token(self) -> Path:
        """The file of what a worker wants to see."""
        return self.folder / "worker.token"

    def worker_headers(self) -> dict[str, str]:
        """What a worker wants to see."""
        return {"Authorization": f"Bearer {self._tokens['worker']}"}

    # --- the whole

    async def start(self, *, workers: int = 2, gateways: int = 2) -> Rig:
        await self.start_redis()
        await self.add_gateways(gateways)
        await self.add_workers(workers)
        return self

    async def mend(self, *, workers: int = 2, gateways: int = 2) -> None:
        """Bring the rig back to that many calm, living parts."""
        if self.redis is None or self.redis.returncode is not None:
            await self.start_redis()
        for gateway in list(self.gateways):
            kill(gateway.pid, signal.SIGCONT)
            gateway.wire.calm()
            if not alive(gateway.pid):
                await self.drop_gateway(gateway)
        if missing := gateways - len(self.gateways):
            await self.add_gateways(missing)
        for worker in list(self.workers):
            kill(worker.pid, signal.SIGCONT)
            worker.wire.calm()
            if not alive(worker.pid):
                await self.remove(worker)
        if (missing := workers - len(self.workers)) > 0:
            await self.add_workers(missing)

    async def close(self) -> None:
        parts: list[Gateway | Worker] = [*self.gateways, *self.workers]
        if self._spare is not None:
            self._spare.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                parts.append(await self._spare)
        for part in parts:
            await part.process.stop()
            await part.wire.close()
        if self.redis is not None:
            await self.redis.stop()


def _free_port() -> int:
    """A port that Redis can keep over its restarts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
