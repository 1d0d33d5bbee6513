"""Who may call, and whether they mean this worker."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from aiohttp import web

from berth_api.errors import InvalidRequest, Unauthorized, WrongWorker
from berth_api.wire import VERSION_HEADER, WIRE_VERSION, WORKER_HEADER

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware


def guard(worker_id: str, token: str | None) -> Middleware:
    """Return the middleware that checks token, worker id and wire version before anything of a request is read."""
    expected = f"Bearer {token}".encode() if token is not None else None

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        sent = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if expected is not None and request.path != "/health" and not hmac.compare_digest(sent, expected):
            raise Unauthorized("this worker wants its bearer token")
        meant = request.headers.get(WORKER_HEADER)
        if meant is not None and meant != worker_id:
            raise WrongWorker(f"this is worker {worker_id}, not {meant}", worker=worker_id)
        if request.headers.get(VERSION_HEADER, str(WIRE_VERSION)) != str(WIRE_VERSION):
            raise InvalidRequest(f"this worker speaks wire version {WIRE_VERSION}", field=VERSION_HEADER)
        return await handler(request)

    return check


def require_version(request: web.Request) -> None:
    """Raise `InvalidRequest` if a caller of Berth's own protocol does not say which version it speaks."""
    if VERSION_HEADER not in request.headers:
        raise InvalidRequest(f"{VERSION_HEADER} is missing", field=VERSION_HEADER)
