"""A gateway of a few lines: it serves what a test scripts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from msgspec import Struct

from berth_api import public

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[list[web.RouteDef]], Awaitable[str]]


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start a server with the given routes; returns its base URL."""
    servers = []

    async def start(routes: list[web.RouteDef]) -> str:
        app = web.Application()
        app.add_routes(routes)
        server = TestServer(app, host="127.0.0.1")
        await server.start_server()
        servers.append(server)
        return f"http://127.0.0.1:{server.port}"

    yield start
    for server in servers:
        await server.close()


@pytest_asyncio.fixture
async def stream() -> Callable[..., Awaitable[web.StreamResponse]]:
    """Answer a request with events; `cut` breaks the connection after them."""

    async def answer(request: web.Request, events: list[Struct], *, first: int = 0, cut: bool = False):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number, event in enumerate(events, first):
            name = public.EVENT_NAMES[type(event)]
            data = msgspec.json.encode(event).decode()
            await response.write(f": alive\n\nevent: {name}\nid: turn:{number}:0\ndata: {data}\n\n".encode())
        if cut:
            request.transport.abort()
        return response

    return answer
