"""How script calls travel: those of one tick of the event loop leave together, on one of few connections.

A call by itself costs the client more than it costs Redis; written together they share the system calls, and under load
the calls that wait for a free connection form the next batch by themselves. Retries are ours alone (redis-py's are
off): bounded by one deadline a call, and safe because every script may be replayed.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, MasterDownError, NoScriptError, ReadOnlyError, ResponseError

from berth_api.errors import LedgerUnavailable
from berth_gateway.ledger.errors import LedgerFault

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio.connection import AbstractConnection

    from berth_gateway.ledger.scripts import Script
    from berth_gateway.ledger.settings import LedgerSettings

_Command = tuple[str | bytes | int, ...]

_CLOSED = "the ledger was closed"
_PASSING = ("LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY")
"""Answers of a Redis that starts, fails over or is held up: another try may do."""
_REFUSING = ("OOM", "MISCONF", "NOREPLICAS", "NOPERM", "DENIED")
"""Answers of a Redis that is there and will not: trying again at once would not help."""


class _Lost(Exception):
    """The connection failed under a call; whether it acted is not known."""


@dataclass(slots=True, eq=False)
class _Call:
    command: _Command
    wait: bool
    reply: asyncio.Future[tuple[Any, int]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def succeed(self, value: Any, replicas: int = 0) -> None:
        if not self.reply.done():
            self.reply.set_result((value, replicas))

    def fail(self, error: BaseException) -> None:
        if not self.reply.done():
            self.reply.set_exception(error)


class Transport:
    """Carries commands to one Redis. Belongs to one event loop."""

    def __init__(self, url: str, settings: LedgerSettings) -> None:
        self._settings = settings
        # Only a maker of connections: borrowing from it for every batch would cost more than the batch. One silence
        # limit spans a whole exchange, so a socket needs none of its own.
        self._maker = ConnectionPool.from_url(
            url,
            socket_timeout=None,
            socket_connect_timeout=settings.socket_timeout_s,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
            protocol=2,
        )
        make: Callable[[], AbstractConnection] = self._maker.make_connection
        self._idle = [make() for _ in range(settings.connections)]
        self._pending: deque[_Call] = deque()
        self._flying: set[asyncio.Task[None]] = set()
        self._scheduled = False
        self._closed = False

    async def aclose(self) -> None:
        """Drop the connections; calls in flight fail."""
        self._closed = True
        flying = list(self._flying)
        for task in flying:
            task.cancel()
        await asyncio.gather(*flying, return_exceptions=True)
        while self._pending:
            self._pending.popleft().fail(LedgerUnavailable(_CLOSED))
        await asyncio.gather(*(connection.disconnect(nowait=True) for connection in self._idle))

    async def run(self, script: Script, prefix: str, *args: bytes, wait: bool = False) -> tuple[Any, int]:
        """Run a script; return its reply and the number of replicas known to have it (0 unless `wait`)."""
        by_sha: _Command = ("EVALSHA", script.sha, 1, prefix, *args)
        return await self._deliver(by_sha, ("EVAL", script.text, 1, prefix, *args), wait=wait)

    async def command(self, *command: str | bytes | int) -> Any:
        """Run one plain command that may be repeated."""
        return (await self._deliver(command, command, wait=False))[0]

    async def _deliver(self, command: _Command, in_full: _Command, *, wait: bool) -> tuple[Any, int]:
        """`in_full` goes instead once Redis does not know the script."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.deadline_s
        pause = self._settings.retry_first_s
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    return await self._enqueue(command, wait=wait)
            except TimeoutError as error:
                raise LedgerUnavailable("Redis gave no answer in time") from error
            except NoScriptError:
                command = in_full
                continue
            except ResponseError as error:
                _judge(error)
                cause: Exception = error
            except _Lost as error:
                cause = error
            if loop.time() + pause >= deadline:
                raise LedgerUnavailable(f"Redis is not reachable: {cause}") from cause
            await asyncio.sleep(pause)
            pause = min(2 * pause, self._settings.retry_most_s)

    async def _enqueue(self, command: _Command, *, wait: bool) -> tuple[Any, int]:
        if self._closed:
            raise LedgerUnavailable(_CLOSED)
        call = _Call(command, wait)
        self._pending.append(call)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)
        return await call.reply

    def _flush(self) -> None:
        self._scheduled = False
        while self._pending and self._idle:
            size = min(len(self._pending), self._settings.batch_calls)
            batch = [call for call in (self._pending.popleft() for _ in range(size)) if not call.reply.done()]
            if batch:
                task = asyncio.create_task(self._fly(self._idle.pop(), batch))
                self._flying.add(task)
                task.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._flying.discard(task)
        if not self._closed:
            self._flush()

    async def _fly(self, connection: AbstractConnection, batch: list[_Call]) -> None:
        try:
            async with asyncio.timeout(self._settings.socket_timeout_s):
                await self._exchange(connection, batch)
        except BaseException as error:
            # Replies may still be under way: this stream no longer tells which is whose.
            await connection.disconnect(nowait=True)
            lost = isinstance(error, Exception)
            for call in batch:
                call.fail(_Lost(f"{error or 'no answer in time'}") if lost else LedgerUnavailable(_CLOSED))
            if not lost:
                raise
        finally:
            self._idle.append(connection)

    async def _exchange(self, connection: AbstractConnection, batch: list[_Call]) -> None:
        waiting = any(call.wait for call in batch)
        commands = [call.command for call in batch]
        if waiting:
            commands.append(("WAIT", self._settings.wait_replicas, int(self._settings.wait_timeout_s * 1000)))
        await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        held: list[tuple[_Call, Any]] = []
        for call in batch:
            try:
                reply = await connection.read_response(timeout=math.inf)
            except (BusyLoadingError, ReadOnlyError, MasterDownError):
                raise  # the address leads elsewhere soon: connect anew
            except ResponseError as error:
                call.fail(error)
                continue
            if call.wait:
                held.append((call, reply))
            else:
                call.succeed(reply)
        if waiting:
            replicas = int(await connection.read_response(timeout=math.inf))
            for call, reply in held:
                call.succeed(reply, replicas)


def _judge(error: ResponseError) -> None:
    """Return where another try may do, else raise. The code comes first, or deep inside the text (Redis 6)."""
    words = set(re.findall(r"[A-Z]{3,}", f"{error.status_code or ''} {error}"))
    if words.intersection(_REFUSING):
        raise LedgerUnavailable(f"Redis refuses: {error}") from error
    if not words.intersection(_PASSING):
        raise LedgerFault(f"Redis does not understand: {error}") from error
