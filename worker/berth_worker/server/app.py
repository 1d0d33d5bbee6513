"""The worker's HTTP application: routes, and what every request passes."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import TYPE_CHECKING

from aiohttp import web

from berth_api.wire import TURN_CONTENT_TYPE
from berth_worker.server import info, native, turns
from berth_worker.server.access import guard
from berth_worker.server.problems import as_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from berth_worker.server.served import Served

    Route = Callable[[web.Request, Served], Awaitable[web.StreamResponse]]


async def _generate(request: web.Request, served: Served) -> web.StreamResponse:
    """POST /generate: msgpack is a gateway's turn, anything else SGLang's JSON."""
    handler = turns.turn if request.content_type == TURN_CONTENT_TYPE else native.generate
    return await handler(request, served)


ROUTES: list[tuple[str, str, Route]] = [
    ("POST", "/generate", _generate),
    ("POST", "/open_session", native.open_session),
    ("POST", "/close_session", native.close_session),
    ("POST", "/abort_request", native.abort_request),
    ("POST", "/flush_cache", native.flush_cache),
    ("POST", "/berth/stop", turns.stop),
    ("POST", "/berth/release", turns.release),
    ("GET", "/berth/model", info.model),
    ("GET", "/berth/model/files/{name}", info.model_file),
    ("GET", "/get_server_info", info.server_info),
    ("GET", "/health", info.health),
    ("GET", "/metrics", info.metrics),
]


def build_app(served: Served) -> web.Application:
    """Return the application that serves `served`."""
    limits = served.settings.server
    app = web.Application(middlewares=[as_json, guard(served.id, limits.token)], client_max_size=limits.body_limit)
    for method, path, handler in ROUTES:
        app.router.add_route(method, path, _bind(handler, served))
    return app


def _bind(handler: Route, served: Served) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def bound(request: web.Request) -> web.StreamResponse:
        return await handler(request, served)

    return bound


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that owns the address and refuses connections until it listens.

    To be called before a model is loaded: nobody wants to wait for that to hear that the port is taken. Raises
    `OSError`.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


class Server:
    """The application on a socket."""

    def __init__(self, served: Served) -> None:
        self._served = served
        # A client that goes away cancels its handler, which aborts its requests.
        self._runner = web.AppRunner(
            build_app(served), handler_cancellation=True, access_log=None, shutdown_timeout=1.0
        )

    async def start(self, bound: socket.socket) -> str:
        """Start the engine, listen on `bound` and return the base URL."""
        self._served.engine.start()
        await self._runner.setup()
        await web.SockSite(self._runner, bound).start()
        host, port = bound.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def drain(self) -> None:
        """Take no new work; give what runs its time, then abort it; stop listening."""
        engine, limit_s = self._served.engine, self._served.settings.server.drain_s
        await engine.ask(lambda core: core.drain())
        try:
            async with asyncio.timeout(limit_s):
                await engine.quiet.wait()
        except TimeoutError:
            await engine.ask(lambda core: core.abort_all("draining", "the worker is going away"))
        await self.stop()

    async def stop(self) -> None:
        """Stop listening and end the engine."""
        await self._runner.cleanup()
        await self._served.engine.stop()


def loopback(host: str) -> bool:
    """Say whether `host` can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
