"""Reading request bodies: whatever a client sends, it hears what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from berth_api.errors import InvalidRequest

if TYPE_CHECKING:
    from aiohttp import web

T = TypeVar("T")


def decode(kind: type[T], body: bytes, *, packed: bool = False) -> T:
    """Return `body` (JSON, or msgpack if `packed`) as a `kind`. Raises `InvalidRequest` naming the member at fault."""
    try:
        return msgspec.msgpack.decode(body, type=kind) if packed else msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest(str(error), field=_field(str(error))) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the body is not {'msgpack' if packed else 'JSON'}: {error}", field="body") from error
    except RecursionError as error:
        raise InvalidRequest("the body is nested too deeply", field="body") from error


async def read(kind: type[T], request: web.Request) -> T:
    """Return the JSON body of `request` as a `kind`."""
    return decode(kind, await request.read())


def _field(message: str) -> str:
    """Return the member that a msgspec message names: "… - at `$.sampling.top_p`" or "… unknown field `x`"."""
    if "`$" in message:
        path = message.rpartition("`$")[2].rstrip("`").lstrip(".")
        if path:
            return path
    quoted = message.split("`")
    return quoted[1] if "field" in message and len(quoted) > 1 else "body"
