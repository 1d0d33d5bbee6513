"""From engine events to bytes on the wire."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from berth_api.wire import Aborted, Finished

if TYPE_CHECKING:
    from berth_worker.engine.requests import Event

KEEPALIVE = b": \n\n"


class EventStream:
    """One request's events on the event loop's side. Bounded by the request's own max_new_tokens."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Event] = asyncio.Queue()
        self.ended = False
        """The last event has been read."""

    def put(self, event: Event) -> None:
        """Take an event (event loop only)."""
        self._queue.put_nowait(event)

    async def read(self, timeout_s: float | None = None) -> list[Event]:
        """Return all that has come, at least one event; none only if `timeout_s` passed without any."""
        try:
            async with asyncio.timeout(timeout_s):
                events = [await self._queue.get()]
        except TimeoutError:
            return []
        while not self._queue.empty():
            events.append(self._queue.get_nowait())
        self.ended = isinstance(events[-1], Finished | Aborted)
        return events


async def open_sse(request: web.Request) -> web.StreamResponse:
    """Send the headers of a stream of server-sent events."""
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    )
    await response.prepare(request)
    return response


def sse(data: bytes) -> bytes:
    """Return one server-sent event."""
    return b"data: " + data + b"\n\n"
