"""A whole fleet on this machine: Redis, gateways and workers, from the first start to the last end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp

from berth_operator.admin_client import AdminClient
from berth_operator.local import commands
from berth_operator.local.events import Event, FleetReady, RedisUp
from berth_operator.local.health import Health
from berth_operator.local.keeper import Keeper
from berth_operator.local.reconcile import Reconciler
from berth_operator.local.services import GatewayService, RedisService
from berth_operator.local.settings import LocalSettings
from berth_operator.local.state_dir import FleetFile, StateDir, WorkerEntry, read_token
from berth_operator.local.workers import Workers
from berth_operator.model import Fleet, Ready

Report = Callable[[Event], None]


@asynccontextmanager
async def running(settings: LocalSettings, report: Report) -> AsyncIterator[LocalFleet]:
    """Run a fleet: it is up when the body begins, and all of it has ended when the body has.

    Raises StateDirInUse, StateDirUnusable, RedisMissing, ChildFailed and AdminRefused when it cannot come up. Cancelled
    again while it ends, it kills what is left at once.
    """
    state = await StateDir.open(settings.state_dir, settings.times.lock_s)
    try:
        async with _redis(settings, state) as redis, aiohttp.ClientSession() as http:
            fleet = LocalFleet(settings, state, redis, http=http, report=report)
            try:
                await fleet.start()
                yield fleet
            finally:
                await fleet.stop()
    finally:
        state.close()


@asynccontextmanager
async def _redis(settings: LocalSettings, state: StateDir) -> AsyncIterator[RedisService]:
    """Redis is the first to come, since all need its address, and the last to go: it holds what the others said."""
    redis = RedisService(settings, state)
    try:
        await redis.come_up(settings.times.redis_start_s)
        yield redis
    finally:
        if redis.child is not None:
            await redis.child.end(settings.times.redis_stop_s)


class LocalFleet:
    """The parts and the tasks that keep them. Made by `running`."""

    def __init__(
        self,
        settings: LocalSettings,
        state: StateDir,
        redis: RedisService,
        *,
        http: aiohttp.ClientSession,
        report: Report,
    ) -> None:
        times = settings.times
        self._settings = settings
        self._state = state
        self._http = http
        self._report = report
        self._admin_token = state.new_token("admin")
        self._worker_token = state.new_token("worker")
        self._published: FleetFile | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._asked = asyncio.Event()
        self._redis = redis
        command = commands.gateway(settings, redis.url, self._admin_token, self._worker_token)
        self._gateways = [
            GatewayService(n, command, settings.gateway_port if n == 0 else 0, state) for n in range(settings.gateways)
        ]
        self._workers = Workers(commands.worker(settings, self._worker_token), state, self._changed, times.stop_grace_s)
        self._health = Health(http, every_s=times.health_every_s, timeout_s=times.health_timeout_s)
        self.admin = AdminClient(
            self._admins, read_token(str(self._admin_token)), http, timeout_s=times.admin_timeout_s
        )
        self._reconciler = Reconciler(
            Fleet(settings.key, settings.workers),
            settings.policy,
            self._workers,
            health=self._health,
            admin=self.admin,
            report=report,
        )
        services = [redis, *self._gateways]
        for service in services:
            service.on_change = self._changed
        self._keeper = Keeper(
            services, self._workers, self._reconciler, times=times, backoff=settings.policy.backoff, report=report
        )

    @property
    def gateways(self) -> list[str]:
        """Base URLs; they stay the same while the fleet runs."""
        return [gateway.url for gateway in self._gateways if gateway.url]

    @property
    def redis(self) -> str:
        """The ledger's URL; it stays the same too."""
        return self._redis.url

    @property
    def workers(self) -> list[WorkerEntry]:
        """The worker processes that are ready now."""
        return self._workers.entries()

    async def start(self) -> None:
        """Return once all is up and the fleet answers."""
        self._report(RedisUp(self._redis.url, self._redis.entry().pid))
        loops = (self._keeper.run(), self._reconcile(), self._health.watch(self._ready_workers))
        self._tasks = [asyncio.create_task(loop) for loop in loops]
        up = asyncio.create_task(self._come_up())
        try:
            await asyncio.wait([up, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            up.cancel()
        self._check(up)
        self._keeper.up = True
        self._publish()
        self._report(self._ready())

    async def wait(self) -> None:
        """Wait for ever; raises what has ended a task, which is a fault of ours."""
        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        self._check()

    async def stop(self) -> None:
        """End gateways and workers; turns may finish for a few seconds."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        children = [*self._workers.children(), *(gateway.child for gateway in self._gateways if gateway.child)]
        try:
            await asyncio.gather(*(child.end(self._settings.times.drain_s) for child in children))
        finally:
            for child in children:
                child.kill()

    def _check(self, *others: asyncio.Task[None]) -> None:
        for task in (*self._tasks, *others):
            if task.done():
                task.result()

    def _changed(self) -> None:
        self._keeper.changed.set()
        self._asked.set()

    async def _reconcile(self) -> None:
        """Ask the gateways, plan, act; at every change and every tick."""
        while True:
            self._asked.clear()
            await self._reconciler.step()
            self._publish()
            try:
                async with asyncio.timeout(self._settings.times.tick_s):
                    await self._asked.wait()
            except TimeoutError:
                continue

    async def _come_up(self) -> None:
        """Wait until the fleet answers. Raises AdminRefused: a worker that is not taken now never will be."""
        while not await self._answers():
            if self._reconciler.refusal is not None:
                raise self._reconciler.refusal
            await asyncio.sleep(self._settings.times.poll_s)
            self._asked.set()

    async def _answers(self) -> bool:
        """Whether all parts are there, know each other and take work."""
        ready = {worker.id for worker in self.workers}
        taken = {worker.id for worker in self._reconciler.registered or ()}
        if len(ready) < self._settings.workers or taken != ready:
            return False
        if not all(service.serving for service in (self._redis, *self._gateways)):
            return False
        return all(await asyncio.gather(*(self._is_ready(url) for url in self.gateways)))

    async def _is_ready(self, gateway: str) -> bool:
        timeout = aiohttp.ClientTimeout(total=self._settings.times.admin_timeout_s)
        try:
            async with self._http.get(f"{gateway}/readyz", timeout=timeout) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    def _admins(self) -> list[str]:
        return [gateway.admin for gateway in self._gateways if gateway.admin]

    def _ready_workers(self) -> list[Ready]:
        return [Ready(worker.id, worker.url) for worker in self.workers]

    def _ready(self) -> FleetReady:
        return FleetReady(
            gateway=self.gateways[0],
            gateways=self.gateways,
            admin=self._admins()[0],
            admins=self._admins(),
            redis=self._redis.url,
            workers=self.workers,
            state_dir=str(self._state.path),
        )

    def _publish(self) -> None:
        """Keep `fleet.json` true, from when the fleet is up."""
        if not self._keeper.up:
            return
        key = self._settings.key
        now = FleetFile(
            pid=os.getpid(),
            model=self._settings.model,
            namespace=key.namespace,
            fleet=key.name,
            redis=self._redis.entry(),
            gateways=[gateway.entry() for gateway in self._gateways],
            workers=self.workers,
            admin_token_file=str(self._admin_token),
            worker_token_file=str(self._worker_token),
        )
        if now != self._published:
            self._state.publish(now)
            self._published = now
