"""Probes and metrics of the operator."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from berth_operator.kube.metrics import Metrics

if TYPE_CHECKING:
    Handler = Callable[[web.Request], Awaitable[web.Response]]


async def serve(
    host: str, port: int, *, metrics: Metrics, troubles: Callable[[], list[str]], waits: Callable[[], list[str]]
) -> tuple[web.AppRunner, str]:
    """Listen; return the runner, to be cleaned up, and the base URL.

    `troubles` says why it should be started anew (/healthz), `waits` why it does not work yet (/readyz).

    Raises OSError.
    """
    app = web.Application()
    app.add_routes(
        [
            web.get("/healthz", _probe(troubles)),
            web.get("/readyz", _probe(lambda: [*waits(), *troubles()])),
            web.get("/metrics", _metrics(metrics)),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    bound = runner.addresses[0]
    return runner, f"http://{bound[0]}:{bound[1]}"


def _probe(problems: Callable[[], list[str]]) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        found = problems()
        return web.Response(status=503 if found else 200, text="\n".join(found or ["ok"]) + "\n")

    return answer


def _metrics(metrics: Metrics) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=metrics.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return answer
