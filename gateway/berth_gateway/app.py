"""Puts a gateway together: two applications (public, admin) over one set of backends, and their life."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from berth_api.errors import BerthError
from berth_gateway import admin, openai, sessions, turns
from berth_gateway.answers import json_answer
from berth_gateway.auth import PRINCIPAL, KeyRing, require_token
from berth_gateway.backends import Backends
from berth_gateway.context import GATEWAY, Gateway, gateway_of
from berth_gateway.keeper import Keeper
from berth_gateway.ledger.ledger import Ledger
from berth_gateway.limits import Limiter
from berth_gateway.models import Models
from berth_gateway.problems import Handler, HttpProblem, problem_middleware
from berth_gateway.reaper import reap_for_ever
from berth_gateway.settings import Settings
from berth_gateway.workers import WorkerClient

_OPEN = frozenset({"/healthz", "/readyz", "/metrics"})


@dataclass(frozen=True)
class Served:
    """A gateway that listens."""

    gateway: Gateway
    url: str
    admin_url: str


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Know the caller before a handler does; probes and metrics need no key."""
    if request.path not in _OPEN:
        request[PRINCIPAL] = gateway_of(request).keys.authenticate(request.headers.get("Authorization"))
    return await handler(request)


@web.middleware
async def authenticate_admin(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.path not in _OPEN:
        require_token(request.headers.get("Authorization"), gateway_of(request).settings.auth.admin_token)
    return await handler(request)


async def healthz(request: web.Request) -> web.Response:
    """The process is alive; it says nothing about others."""
    del request
    return json_answer({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """Turns would be taken: the ledger answers, and we are not going away."""
    gateway = gateway_of(request)
    if gateway.keeper.draining:
        raise HttpProblem(503, "this gateway is going away", kind="draining")
    try:
        await gateway.backends.ledger.ping()
    except BerthError as error:
        raise HttpProblem(503, f"the ledger does not answer: {error.message}", kind=error.type) from None
    return json_answer({"status": "ready"})


async def metrics(request: web.Request) -> web.Response:
    body = gateway_of(request).backends.metrics.exposition()
    return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


def public_app(gateway: Gateway) -> web.Application:
    app = web.Application(
        middlewares=[problem_middleware, authenticate], client_max_size=gateway.settings.http.body_bytes
    )
    app[GATEWAY] = gateway
    app.add_routes([*_probes(), *sessions.routes(), *turns.routes(), *openai.routes()])
    return app


def admin_app(gateway: Gateway) -> web.Application:
    app = web.Application(
        middlewares=[problem_middleware, authenticate_admin], client_max_size=gateway.settings.http.body_bytes
    )
    app[GATEWAY] = gateway
    app.add_routes([*_probes(), *admin.routes()])
    return app


def _probes() -> list[web.RouteDef]:
    return [web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)]


@asynccontextmanager
async def serve(settings: Settings) -> AsyncIterator[Served]:
    """Listen on both ports until the block ends; then let running turns finish.

    Raises `OSError` where a port is taken, `OSError` or `ValueError` where the key file cannot be read.
    """
    keys = KeyRing(settings.auth.api_keys)
    backends = Backends(
        settings,
        Ledger.connect(settings.redis_url, settings.ledger),
        WorkerClient(settings.worker, settings.auth.worker_token),
    )
    models = Models(backends)
    gateway = Gateway(backends, models, Keeper(backends, models), keys, Limiter(settings.rate))
    public, private = _runner(public_app(gateway), settings), _runner(admin_app(gateway), settings)
    tasks: list[asyncio.Task[None]] = []
    try:
        url = await _listen(public, settings.http.host, settings.http.port)
        admin_url = await _listen(private, settings.http.admin_host, settings.http.admin_port)
        tasks += [asyncio.create_task(gateway.keeper.follow_orders()), asyncio.create_task(reap_for_ever(backends))]
        yield Served(gateway, url, admin_url)
        await _stop_listening(public)
        await gateway.keeper.drain(settings.http.drain_s)
    finally:
        await end(*tasks)
        await public.cleanup()
        await private.cleanup()
        models.close()
        await backends.aclose()


async def end(*tasks: asyncio.Task[None], again_s: float = 1.0) -> None:
    """Cancel until they are gone: a loop for ever may take what a cancelled call fails with for a reason to go on."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=again_s)
    await asyncio.gather(*tasks, return_exceptions=True)


def _runner(app: web.Application, settings: Settings) -> web.AppRunner:
    return web.AppRunner(
        app,
        access_log=None,
        handler_cancellation=True,  # a client that goes is noticed at once, not at the next write
        keepalive_timeout=settings.http.idle_connection_s,
        shutdown_timeout=settings.stream.write_s,
    )


async def _listen(runner: web.AppRunner, host: str, port: int) -> str:
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    bound = runner.addresses[0]
    shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
    return f"http://{shown}:{bound[1]}"


async def _stop_listening(runner: web.AppRunner) -> None:
    """New connections go elsewhere; those that are open go on."""
    for site in list(runner.sites):
        await site.stop()
