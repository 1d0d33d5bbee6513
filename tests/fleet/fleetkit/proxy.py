"""A TCP proxy with a hand on the wire: the honest way to be between two processes at a chosen moment.

"The worker dies after its last token and before its finish" is a moment of microseconds. A proxy that sees the finish
pass by can hold it, kill the worker, and let go: the processes are real, the moment is exact.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

CHUNK = 1 << 16

Action = Callable[[], Awaitable[bool]]
"""What to do when a pattern is about to pass; False: the bytes from the pattern on are dropped with the connection."""


@dataclass(eq=False)
class _Wire:
    """One connection: two streams and the tasks that pump them."""

    near: asyncio.StreamWriter
    far: asyncio.StreamWriter
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def abort(self) -> None:
        for writer in (self.near, self.far):
            if isinstance(transport := writer.transport, asyncio.WriteTransport):
                transport.abort()


@dataclass
class Direction:
    """Which bytes may pass one way. `hold` keeps them (and all behind them) until `release`; `swallow` loses them."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    swallow: bool = False
    watches: list[tuple[bytes, Action]] = field(default_factory=list)
    passed: int = 0

    def __post_init__(self) -> None:
        self.gate.set()

    def hold(self) -> None:
        self.gate.clear()

    def release(self) -> None:
        self.gate.set()

    def on(self, pattern: bytes, action: Action) -> None:
        """Run `action` once, when `pattern` is read and before it is passed on."""
        self.watches.append((pattern, action))


class Proxy:
    """Listens on a free port of 127.0.0.1; every connection goes to `target`. `up` is client to server."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.up, self.down = Direction(), Direction()
        self._wires: set[_Wire] = set()
        self._server: asyncio.Server | None = None
        self._accepting: set[asyncio.Task[None]] = set()

    async def start(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def connections(self) -> int:
        return len(self._wires)

    def calm(self) -> None:
        """Back to a plain proxy."""
        for direction in (self.up, self.down):
            direction.watches.clear()
            direction.swallow = False
            direction.release()

    def cut(self) -> None:
        """Reset every connection; what was held is lost."""
        for wire in list(self._wires):
            wire.abort()
            for task in wire.tasks:
                task.cancel()

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*self._accepting, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._accepting.add(task)
        task.add_done_callback(self._accepting.discard)
        try:
            far_reader, far = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            near.transport.abort()
            return
        wire = _Wire(near, far)
        self._wires.add(wire)
        wire.tasks = [
            asyncio.create_task(self._pump(reader, far, self.up)),
            asyncio.create_task(self._pump(far_reader, near, self.down)),
        ]
        await asyncio.gather(*wire.tasks, return_exceptions=True)
        wire.abort()
        self._wires.discard(wire)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: Direction) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK):
                await way.gate.wait()
                if not await self._pass(data, sink, way):
                    break
        # A held pump must not lose its peer's EOF, nor pass it before what is held: it comes here last.
        with contextlib.suppress(OSError):
            if sink.can_write_eof():
                sink.write_eof()

    async def _pass(self, data: bytes, sink: asyncio.StreamWriter, way: Direction) -> bool:
        for watch in list(way.watches):
            pattern, action = watch
            if (at := data.find(pattern)) >= 0 and watch in way.watches:
                way.watches.remove(watch)
                if way.swallow is False and at:
                    sink.write(data[:at])
                    await sink.drain()
                    data = data[at:]
                if not await action():
                    self.cut()
                    return False
        await way.gate.wait()
        if not way.swallow:
            sink.write(data)
            await sink.drain()
        way.passed += len(data)
        return True
