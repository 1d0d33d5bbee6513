"""Every refusal as RFC 9457 problem+json; on the OpenAI routes in OpenAI's shape, so that its clients understand it.

aiohttp's own errors (404, 405, 413) take the same way. What nobody expected is logged whole and told as nothing more
than `internal_error`: a stack trace is for us.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog
from aiohttp import web

from berth_api.errors import BerthError

log = structlog.get_logger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_OPENAI_PREFIXES = ("/v1/chat/", "/v1/models")
_OPENAI_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_PLAIN_TYPES = {404: "not_found", 405: "method_not_allowed", 413: "too_long"}


class HttpProblem(BerthError):
    """A refusal of the HTTP layer itself, with the status that layer chose."""

    def __init__(self, status: int, message: str, *, kind: str | None = None, **members: Any) -> None:
        super().__init__(message, **members)
        self.http_status = status
        self.kind = kind or _PLAIN_TYPES.get(status, "invalid_request")

    def problem(self) -> dict[str, Any]:
        return {"type": self.kind, "status": self.http_status, "detail": self.message, **self.members}


def openai_error(problem: dict[str, Any]) -> dict[str, Any]:
    """Return OpenAI's error object for a problem."""
    status = problem["status"]
    kind = _OPENAI_KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {
        "error": {
            "message": problem["detail"],
            "type": kind,
            "param": problem.get("field"),
            "code": problem["type"],
        }
    }


def answer(error: BerthError, *, openai: bool = False) -> web.Response:
    """Return the HTTP answer of a refusal."""
    problem = error.problem()
    headers = {}
    wait = problem.get("retry_after", 1 if problem["status"] == 503 else None)
    if wait is not None:
        headers["Retry-After"] = str(max(1, math.ceil(wait)))
    if problem["status"] == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return web.Response(
        body=msgspec.json.encode(openai_error(problem) if openai else problem),
        status=problem["status"],
        content_type="application/json" if openai else "application/problem+json",
        headers=headers,
    )


def speaks_openai(request: web.Request) -> bool:
    return request.path.startswith(_OPENAI_PREFIXES)


@web.middleware
async def problem_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever a handler raises into an answer."""
    try:
        return await handler(request)
    except BerthError as error:
        refusal: BerthError = error
        if error.problem()["status"] >= 500:
            log.warning("request.failed", path=request.path, type=error.type, detail=error.message)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        refusal = HttpProblem(error.status, error.reason)
        response = answer(refusal, openai=speaks_openai(request))
        if allow := error.headers.get("Allow"):
            response.headers["Allow"] = allow
        return response
    except ConnectionError:
        raise  # the client is gone: there is nobody to tell
    except Exception:
        log.exception("request.crashed", method=request.method, path=request.path)
        refusal = BerthError("the gateway failed on this request; its log says why")
    return answer(refusal, openai=speaks_openai(request))
