"""One connection to a worker, for one POST after another; an answer is handed on within the call that read it.

A token should not wait for a task to be woken, twice: once to read it and once to send it on. So there is neither a
task nor a stream between a worker's socket and whoever listens to its answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

from berth_gateway.answer import AnswerReader, BadAnswer

T = TypeVar("T")

_PIECE = 1 << 18
"""Bytes of a request that leave at one go: one write of megabytes holds up every other stream."""


class Lost(Exception):
    """The connection ended before the answer did."""


class Refused(Exception):
    """An answer with another status than 200, and its whole body."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.body = body


class _Call(Generic[T]):
    """A request that waits for its end."""

    def __init__(self, on_accepted: Callable[[], None], on_data: Callable[[bytes], T | None], most: int) -> None:
        self.on_accepted = on_accepted
        self.on_data = on_data
        self.most = most
        self.accepted = False
        self.good = False
        """It has what it asked for."""
        self.refusal = bytearray()
        self.end: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def fail(self, error: Exception) -> None:
        if not self.end.done():
            self.end.set_exception(error)


class Exchange(asyncio.Protocol):
    """A connection. `on_idle` is told when it may be used again; after `idle_s` without use it closes itself."""

    def __init__(
        self, on_idle: Callable[[Exchange], None], on_closed: Callable[[Exchange], None], idle_s: float
    ) -> None:
        self._on_idle = on_idle
        self._on_closed = on_closed
        self._idle_s = idle_s
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = AnswerReader()
        self._call: _Call[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._sending = False
        self._writable = asyncio.Event()
        self._writable.set()

    @property
    def usable(self) -> bool:
        """It is open, and nobody has closed it in this turn of the loop."""
        return self._transport is not None and not self._transport.is_closing()

    async def post(
        self,
        head: bytes,
        body: bytes,
        on_accepted: Callable[[], None],
        on_data: Callable[[bytes], T | None],
        *,
        refusal_bytes: int = 1 << 16,
    ) -> T:
        """Send a request; return what `on_data` first returns for a piece of the answer's body that is not None.

        `on_accepted` is called first, once the status is 200. What either raises is raised here. Where this ends
        before the answer did, cancelled or not, the connection is closed, which tells the worker. Raises `Lost`,
        `Refused`, `BadAnswer`.
        """
        self._wake()
        self._reader = AnswerReader()
        call: _Call[T] = _Call(on_accepted, on_data, refusal_bytes)
        self._call = call
        try:
            await self._send(head, body, call)
            return await call.end
        except BaseException:
            if self._call is call:
                self.close()
            if call.end.done() and not call.end.cancelled():
                call.end.exception()  # cancelled in the moment of its failure: nobody will ask
            raise

    def close(self) -> None:
        """Drop the connection, whatever it is doing."""
        self._wake()
        call, self._call = self._call, None
        if call is not None:
            call.fail(Lost("the connection was given up"))
        if self._transport is not None:
            self._transport.abort()

    async def _send(self, head: bytes, body: bytes, call: _Call[Any]) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            raise Lost("the connection was closed")
        if len(body) <= _PIECE:
            transport.write(head + body)
            return
        self._sending = True
        transport.write(head)
        view = memoryview(body)
        for at in range(0, len(body), _PIECE):
            await self._writable.wait()
            if call.end.done():  # it has its answer, or is gone
                return
            transport.write(view[at : at + _PIECE])
        self._sending = False

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # What the transport calls ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        call = self._call
        if call is None:  # nobody asked
            self.close()
            return
        try:
            piece = self._reader.feed(data)
            if not call.end.done():
                self._hear(call, piece)
        except Exception as error:  # belongs to whoever waits, not to the event loop
            call.fail(error)
        if self._reader.ended and self._call is call:
            self._over(call)

    def _hear(self, call: _Call[Any], piece: bytes) -> None:
        status = self._reader.status
        if status == 200:
            if not call.accepted:
                call.accepted = True
                call.on_accepted()
            result = call.on_data(piece) if piece else None
            if result is not None:
                call.end.set_result(result)
                call.good = True
                # The answer's own end follows at once; where it does not, the connection is given up.
                self._timer = self._loop.call_later(self._idle_s, self.close)
        elif status:
            call.refusal += piece
            if len(call.refusal) > call.most:
                raise BadAnswer(f"a refusal of more than {call.most} bytes")

    def _over(self, call: _Call[Any]) -> None:
        """The answer is complete."""
        refused = self._reader.status != 200
        if refused:
            call.fail(Refused(self._reader.status, bytes(call.refusal)))
        call.fail(Lost("the stream ended before the turn did"))
        if (call.good or refused) and self._reader.reusable and not self._sending:
            self._call = None
            self._timer = self._timer or self._loop.call_later(self._idle_s, self.close)
            self._on_idle(self)
        else:
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._writable.set()
        call, self._call = self._call, None
        if call is not None:
            if self._reader.cut() and self._reader.status != 200:
                call.fail(Refused(self._reader.status, bytes(call.refusal)))
            call.fail(Lost(str(error or "the connection was closed")))
        self._wake()
        self._on_closed(self)
