"""Small answers: JSON by msgspec, entity tags, and numbers out of query strings."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from berth_api.errors import InvalidRequest

_encoder = msgspec.json.Encoder()


def json_answer(body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=_encoder.encode(body), status=status, content_type="application/json", headers=headers or {}
    )


def etag(head: str) -> str:
    """A session's entity tag is its head."""
    return f'"{head}"'


def expected_head(request: web.Request) -> str | None:
    """Return the head that If-Match asks for; None: any."""
    header = request.headers.get("If-Match")
    if header is None or header.strip() == "*":
        return None
    tag = header.strip()
    if not tag.isascii() or len(tag) < 2 or tag[0] != '"' or tag[-1] != '"' or '"' in tag[1:-1]:
        raise InvalidRequest('If-Match must be one head in quotes, as ETag has it, or "*"', field="If-Match")
    return tag[1:-1]


def whole_number(request: web.Request, name: str, default: int, *, most: int) -> int:
    """Return a query parameter between 1 and `most`."""
    text = request.query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= most:
        raise InvalidRequest(f"{name} must be a whole number from 1 to {most}", field=name)
    return int(text)
