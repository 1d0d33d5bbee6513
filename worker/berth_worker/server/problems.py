"""Every refusal leaves as JSON `{"error": {"type", "message", ...}}`, whoever refused: we, aiohttp or the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from aiohttp import web

from berth_api.errors import BerthError, InvalidRequest

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

log = structlog.get_logger(__name__)

HTTP_TYPES = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}


def error_body(kind: str, message: str, **members: Any) -> bytes:
    """Return the body of a refusal."""
    return msgspec.json.encode({"error": {"type": kind, "message": message, **members}})


def refusal(error: BerthError, status: int | None = None) -> web.Response:
    """Return the response of `error`; `status` where a route's dialect wants another one."""
    headers = {"Retry-After": str(error.members["retry_after"])} if "retry_after" in error.members else None
    return web.Response(
        status=status or error.status,
        body=error_body(error.type, error.message, **error.members),
        content_type="application/json",
        headers=headers,
    )


@web.middleware
async def as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every exception into a JSON answer; what nobody foresaw is logged and becomes a 500."""
    try:
        return await handler(request)
    except BerthError as error:
        return refusal(error)
    except web.HTTPException as error:
        kind = HTTP_TYPES.get(error.status, "invalid_request")
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        body = error_body(kind, error.reason or kind)
        return web.Response(status=error.status, body=body, content_type="application/json", headers=headers)
    except web.RequestPayloadError as error:
        return refusal(InvalidRequest(f"the body cannot be read: {error}", field="body"))
    except ConnectionError:
        raise  # the client is gone: there is nobody to tell
    except Exception:
        log.exception("request failed", method=request.method, path=request.path)
        return web.Response(
            status=500, body=error_body("internal_error", "the worker failed"), content_type="application/json"
        )
