"""Server-sent events to a client: framing, event ids, and a bounded buffer between a turn and a slow reader.

A turn never waits for its client: it puts bytes into the stream and goes on. They go straight to the socket while that
keeps up, for a task to be woken for each would be most of what an event costs, and into a buffer where it does not. The
buffer is bounded, and so is each write; a client that stays behind both counts as gone, so that it can hold neither
memory nor a worker's slot.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from dataclasses import dataclass

from aiohttp import web

from berth_api.errors import InvalidRequest
from berth_gateway.settings import StreamSettings

COMMENT = b": \n\n"
_AHEAD = 1 << 16
"""Bytes that may wait in a socket before the rest waits here."""


_LIFE = 10**20
"""A restart counts in steps of this in a sequence number, …"""
_IDS = 10**10
"""… output ids in steps of this, …"""
_CHARS = 100
"""… characters of text in steps of this, and events that brought neither by one."""

_EVENT_ID = re.compile(r"(?P<turn>[A-Za-z0-9._-]{1,200}):(?P<seq>[0-9]{1,30}):(?P<crc>[0-9a-f]{8})")


@dataclass(frozen=True, slots=True)
class EventId:
    """`<turn>:<seq>:<crc>`: what a client has seen when it has seen this event.

    `seq` grows with every event. In it are the output ids and the characters of text so far: a rerun knows where to go
    on, even where it cuts its events otherwise. `crc` is the CRC-32 of those ids, packed.
    """

    turn: str
    ids: int = 0
    chars: int = 0
    crc: int = 0
    life: int = 0
    """How often the client was told to start over."""
    same: int = 0
    """Events before this one that brought the client just as far."""

    def __str__(self) -> str:
        seq = self.life * _LIFE + self.ids * _IDS + self.chars * _CHARS + self.same
        return f"{self.turn}:{seq}:{self.crc:08x}"

    @classmethod
    def parse(cls, text: str) -> EventId:
        """Raises `InvalidRequest` naming the header."""
        found = _EVENT_ID.fullmatch(text)
        if found is None:
            raise InvalidRequest("Last-Event-ID is not an id of this API", field="Last-Event-ID")
        life, rest = divmod(int(found["seq"]), _LIFE)
        ids, rest = divmod(rest, _IDS)
        chars, same = divmod(rest, _CHARS)
        return cls(found["turn"], ids, chars, int(found["crc"], 16), life, same)

    def saw(self, packed: bytes) -> bool:
        """Whether the first `self.ids` of these packed output ids are the ones the client saw."""
        return len(packed) >= 4 * self.ids and zlib.crc32(packed[: 4 * self.ids]) == self.crc


def frame(name: str, event_id: str, data: bytes) -> bytes:
    """One event; `data` must hold no newline (JSON as msgspec writes it has none)."""
    return b"event: %b\nid: %b\ndata: %b\n\n" % (name.encode(), event_id.encode(), data)


class EventResponse(web.StreamResponse):
    """A stream of events; its head leaves with the first of them, in one system call that wakes the client once."""

    _send_headers_immediately = False  # aiohttp's own name for it

    def __init__(self) -> None:
        super().__init__(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        self.headers["X-Accel-Buffering"] = "no"  # nginx before us must not collect what is meant to flow


class ClientStream:
    """The bytes on their way to one client."""

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self._buffer = bytearray()
        self._wake = asyncio.Event()
        self._ended = False
        self._silent = True
        self._read = False
        self._socket: asyncio.WriteTransport | None = None
        self.overrun = False
        """The client is too slow; nothing more is kept for it."""

    def put(self, data: bytes) -> None:
        """Queue bytes; never blocks. Nothing is kept after `end` or an overrun.

        What is queued before `pump` is not bounded: a turn that was committed before is told at one go, of any length.
        """
        if self._ended or self.overrun:
            return
        self._silent = False
        if self._sent(data):
            return
        if self._read and len(self._buffer) + len(data) > self._settings.buffer_bytes:
            self.overrun = True
            self._buffer.clear()
        else:
            self._buffer += data
        self._wake.set()

    def _sent(self, data: bytes) -> bool:
        """Write past the pump, where nothing waits before `data`, in the chunked framing that this response has."""
        socket = self._socket
        if socket is None or self._buffer or socket.is_closing() or socket.get_write_buffer_size() > _AHEAD:
            return False
        socket.write(b"%x\r\n%b\r\n" % (len(data), data))
        return True

    def end(self) -> None:
        """Nothing follows: `pump` returns when all is written."""
        self._ended = True
        self._wake.set()

    async def pump(self, response: web.StreamResponse, socket: asyncio.WriteTransport | None = None) -> None:
        """Write until the end, the head first. Raises `ConnectionError` when the client is gone or too slow.

        `socket` is the response's own, where what is put may go there at once: its body must travel in chunks.
        """
        ticker = asyncio.get_running_loop().call_later(self._settings.keep_alive_s, self._tick)
        self._ticker = ticker
        self._read = True
        try:
            await self._write(response, self._take())
            self._socket = socket
            while not self._ended or self._buffer:
                await self._wake.wait()
                self._wake.clear()
                if self.overrun:
                    raise ConnectionResetError("the client reads too slowly")
                while self._buffer:
                    await self._write(response, self._take())
        finally:
            self._socket = None
            self._ticker.cancel()

    def _take(self) -> bytes:
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    async def _write(self, response: web.StreamResponse, data: bytes) -> None:
        try:
            async with asyncio.timeout(self._settings.write_s):
                await response.write(data)
        except TimeoutError:
            raise ConnectionResetError("the client reads too slowly") from None

    def _tick(self) -> None:
        """Keep proxies from closing a silent stream."""
        if self._silent:
            self.put(COMMENT)
        self._silent = True
        self._ticker = asyncio.get_running_loop().call_later(self._settings.keep_alive_s, self._tick)
