"""What a worker tells about itself: health, server info, metrics and the model's files."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from berth_api.errors import BerthError, Draining
from berth_api.wire import WIRE_VERSION, WorkerInfo
from berth_worker.server.metrics import CONTENT_TYPE, exposition

if TYPE_CHECKING:
    from berth_worker.server.served import Served


class Unhealthy(BerthError):
    """The worker cannot be relied on now."""

    type, status = "unhealthy", 503


async def health(request: web.Request, served: Served) -> web.Response:
    """GET /health: 503 while draining, when a step is overdue and when the engine has failed."""
    del request
    if served.engine.state.draining:
        raise Draining("this worker is going away")
    trouble = served.engine.trouble(served.settings.server.step_limit_s)
    if trouble is not None:
        raise Unhealthy(trouble)
    return web.json_response({"status": "ok"})


async def server_info(request: web.Request, served: Served) -> web.Response:
    """GET /get_server_info: SGLang's fields, `memory` and `berth`."""
    del request
    body: dict[str, Any] = {**served.details, "memory": _memory(served), "berth": msgspec.to_builtins(_worker(served))}
    return web.json_response(body)


def _memory(served: Served) -> dict[str, Any]:
    memory = asdict(served.engine.state.memory)
    free, total = memory.pop("rows_free"), memory.pop("rows_total")
    del memory["rows_held"]
    return {**memory, "rows": {"free": free, "total": total}}


def _worker(served: Served) -> WorkerInfo:
    state = served.engine.state
    return WorkerInfo(
        id=served.id,
        wire=WIRE_VERSION,
        model=served.model,
        slots=served.settings.cache.slots,
        running=state.running,
        queued=state.queued,
        resident=state.resident,
    )


async def metrics(request: web.Request, served: Served) -> web.Response:
    """GET /metrics, in Prometheus' text format."""
    del request
    body = exposition(served.engine.state, served.settings.cache.slots, len(asyncio.all_tasks()))
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})


async def model(request: web.Request, served: Served) -> web.Response:
    """GET /berth/model."""
    del request
    return web.Response(body=msgspec.json.encode(served.model), content_type="application/json")


async def model_file(request: web.Request, served: Served) -> web.StreamResponse:
    """GET /berth/model/files/{name}."""
    path = served.files.get(request.match_info["name"])
    if path is None:
        raise web.HTTPNotFound(reason="the model has no such file")
    return web.FileResponse(path)
