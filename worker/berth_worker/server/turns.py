"""Berth's own routes: a gateway's turns, and the orders that concern them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from berth_api.wire import ReleaseRequest, StopRequest, TurnRequest
from berth_worker.engine.requests import PromptLogprobs
from berth_worker.server.access import require_version
from berth_worker.server.bodies import decode, read
from berth_worker.server.stream import KEEPALIVE, EventStream, open_sse, sse

if TYPE_CHECKING:
    from berth_worker.engine.requests import Event
    from berth_worker.server.served import Served

INLINE_BYTES = 256 << 10
"""Bodies above this are decoded off the event loop."""


async def turn(request: web.Request, served: Served) -> web.StreamResponse:
    """POST /generate with a msgpack body: run one attempt at a turn. The client's going aborts it."""
    require_version(request)
    body = await request.read()
    if len(body) > INLINE_BYTES:
        order = await asyncio.to_thread(decode, TurnRequest, body, packed=True)
    else:
        order = decode(TurnRequest, body, packed=True)
    stream = EventStream()
    try:
        await served.engine.ask(lambda core: core.turn(order, stream))
        response = await open_sse(request)
        await _forward(stream, response, served.settings.server.keepalive_s)
        await response.write_eof()
    finally:
        if not stream.ended:
            served.engine.cancel(stream, "disconnected", "the caller went away")
    return response


async def _forward(stream: EventStream, response: web.StreamResponse, keepalive_s: float) -> None:
    while not stream.ended:
        events = await stream.read(keepalive_s)
        await response.write(b"".join(map(_encode, events)) or KEEPALIVE)


def _encode(event: Event) -> bytes:
    return b"" if isinstance(event, PromptLogprobs) else sse(msgspec.json.encode(event))


async def stop(request: web.Request, served: Served) -> web.Response:
    """POST /berth/stop."""
    require_version(request)
    order = await read(StopRequest, request)
    return web.json_response({"found": await served.engine.ask(lambda core: core.stop(order))})


async def release(request: web.Request, served: Served) -> web.Response:
    """POST /berth/release."""
    require_version(request)
    order = await read(ReleaseRequest, request)
    return web.json_response({"released": await served.engine.ask(lambda core: core.release(order))})
