"""The parts that must always be there at one address: Redis and the gateways.

Each comes back where it was: clients keep a gateway's URL, gateways keep Redis's. A first start may pick a free port,
every later one asks for that port again.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

from berth_operator.errors import ChildFailed
from berth_operator.local import redis
from berth_operator.local.events import Event, GatewayDied, GatewayUp, RedisDied, RedisUp
from berth_operator.local.processes import Child
from berth_operator.local.settings import LocalSettings
from berth_operator.local.state_dir import GatewayEntry, RedisEntry, StateDir
from berth_operator.model import Restarts

_PORTS = 5
"""So many ports are tried for Redis when others are quicker to take them."""


class Service(ABC):
    """One such part. `restarts` is forgotten as soon as it serves again."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.on_change: Callable[[], None] = _nobody
        self.child: Child | None = None
        self.serving = False
        self.restarts = Restarts()

    def start(self, now: float) -> None:
        """Start its process. Raises OSError when that fails, which counts as a failure."""
        try:
            self.child = self._spawn()
        except OSError:
            self.restarts = self.restarts.failed(now)
            raise

    def bury(self, now: float) -> Child | None:
        """Return the process if it has ended since the last call."""
        child = self.child
        if child is None or child.alive:
            return None
        self.child, self.serving = None, False
        self.restarts = self.restarts.failed(now)
        return child

    async def look(self) -> bool:
        """Return True once for each start: when it has begun to serve."""
        if self.serving or self.child is None or not await self._serves(self.child):
            return False
        self.serving, self.restarts = True, Restarts()
        return True

    @property
    def must_be_asked(self) -> bool:
        """Whether it has been started and will give no word when it serves."""
        return False

    def _tell(self) -> None:
        self.on_change()

    @abstractmethod
    def _spawn(self) -> Child: ...

    @abstractmethod
    async def _serves(self, child: Child) -> bool: ...

    @abstractmethod
    def up(self, child: Child) -> Event:
        """Return the word that it serves."""

    @abstractmethod
    def died(self, child: Child) -> Event:
        """Return the word that its process has ended."""


class RedisService(Service):
    """The ledger's Redis."""

    def __init__(self, settings: LocalSettings, state: StateDir) -> None:
        super().__init__("redis")
        self._server = settings.commands.redis or redis.find_server()
        self._state = state
        self._poll_s = settings.times.poll_s
        self.port = 0

    @property
    def url(self) -> str:
        return redis.url(self.port)

    @property
    def must_be_asked(self) -> bool:
        return self.child is not None and not self.serving

    async def come_up(self, timeout_s: float) -> None:
        """Start it for the first time, at a free port, and wait until it serves. Raises ChildFailed.

        Somebody else may take the port between our choice and its start; then another one is tried.
        """
        for tries_left in reversed(range(_PORTS)):
            self.port = redis.free_port()
            self._start_first()
            if await self._came_up(timeout_s):
                return
            dead = self.bury(0.0)
            if dead is not None and (tries_left == 0 or "listening on port" not in dead.last_words()):
                raise ChildFailed(dead.obituary())

    def _start_first(self) -> None:
        try:
            self.start(0.0)
        except OSError as error:
            raise ChildFailed(f"redis cannot be started: {error}") from error

    async def _came_up(self, timeout_s: float) -> bool:
        """Return False once it has ended; raises ChildFailed when it takes too long."""
        deadline = time.monotonic() + timeout_s
        while self.child is not None and self.child.alive:
            if await self.look():
                return True
            if time.monotonic() > deadline:
                raise ChildFailed(f"redis did not serve within {timeout_s:g} s: {self.child.last_words()}")
            await asyncio.sleep(self._poll_s)
        return False

    def entry(self) -> RedisEntry:
        return RedisEntry(self.url, self.child.pid if self.child else 0)

    def _spawn(self) -> Child:
        command = redis.command(self._server, self.port, self._state.redis_data)
        # The lock goes with the data: see state_dir.py.
        return Child(self.name, command, log=self._state.log(self.name), on_change=self._tell, keep=(self._state.lock,))

    async def _serves(self, child: Child) -> bool:
        # Another Redis at the port would answer too, while ours has just failed to bind.
        return await redis.serving_pid(self.port) == child.pid

    def up(self, child: Child) -> RedisUp:
        return RedisUp(self.url, child.pid)

    def died(self, child: Child) -> RedisDied:
        return RedisDied(self.url, child.pid, child.obituary())


class GatewayService(Service):
    """One gateway. Port 0: any at its first start."""

    def __init__(self, index: int, command: list[str], port: int, state: StateDir) -> None:
        super().__init__(f"gateway-{index}")
        self._command = command
        self._state = state
        self._port = port
        self._admin_port = 0
        self.url: str | None = None
        self.admin: str | None = None

    def entry(self) -> GatewayEntry:
        return GatewayEntry(self.url or "", self.admin or "", self.child.pid if self.child else 0)

    def _spawn(self) -> Child:
        ports = ["--port", str(self._port), "--admin-port", str(self._admin_port)]
        return Child(self.name, [*self._command, *ports], log=self._state.log(self.name), on_change=self._tell)

    async def _serves(self, child: Child) -> bool:
        if child.ready is None:
            return False
        self.url, self.admin = str(child.ready["url"]).rstrip("/"), str(child.ready["admin"]).rstrip("/")
        self._port, self._admin_port = _port(self.url), _port(self.admin)
        return True

    def up(self, child: Child) -> GatewayUp:
        return GatewayUp(self.url or "", self.admin or "", child.pid)

    def died(self, child: Child) -> GatewayDied:
        return GatewayDied(self.url, child.pid, child.obituary())


def _nobody() -> None:
    """Listen to no change: before the fleet is put together, whoever starts a service waits for it."""


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])
