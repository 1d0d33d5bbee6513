"""Reads request bodies: bounded in bytes and in time, decoded strictly, refused by the name of the field at fault."""

from __future__ import annotations

import asyncio
import re
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from berth_api.errors import InvalidRequest, TooLong

T = TypeVar("T")

_AT = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_UNKNOWN = re.compile(r"unknown field `(?P<name>[^`]*)`")
_MISSING = re.compile(r"missing required field `(?P<name>[^`]*)`")


async def read_json(request: web.Request, decoder: msgspec.json.Decoder[T], *, limit: int, timeout_s: float) -> T:
    """Return the decoded body, or raise `InvalidRequest` (with `field` where one is at fault) or `TooLong`."""
    return decode_json(await read_bytes(request, limit=limit, timeout_s=timeout_s), decoder)


async def read_bytes(request: web.Request, *, limit: int, timeout_s: float) -> bytes:
    """Return the raw body of at most `limit` bytes."""
    if request.content_length is not None and request.content_length > limit:
        raise _too_long(limit)
    try:
        if request.content.is_eof():  # it came with the head, as most do: there is nothing to wait for
            return await request.read()
        async with asyncio.timeout(timeout_s):
            return await request.read()
    except TimeoutError:
        raise InvalidRequest(f"the body did not arrive within {timeout_s:g} s") from None
    except web.HTTPRequestEntityTooLarge:
        raise _too_long(limit) from None
    except web.RequestPayloadError as error:
        raise InvalidRequest(f"the body cannot be read: {' '.join(str(error).split())}") from None


def decode_json(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Decode strictly; the error tells where."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        message, where = explain(str(error))
        raise InvalidRequest(message, **where) from None
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from None
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not valid UTF-8: {error.reason} at byte {error.start}") from None
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None


def explain(text: str) -> tuple[str, dict[str, Any]]:
    """Split msgspec's message into what is wrong and `{"field": …}`; empty where the whole body is at fault."""
    at = _AT.search(text)
    message = text[: at.start()] if at else text
    path = at["path"] if at else ""
    named = _UNKNOWN.search(message) or _MISSING.search(message)
    if named:
        path = f"{path}.{named['name']}" if path else named["name"]
    return (f"{path}: {message}", {"field": path}) if path else (message, {})


def _too_long(limit: int) -> TooLong:
    return TooLong(f"the body is larger than {limit} bytes", limit=limit)
