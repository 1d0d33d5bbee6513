"""Calls to workers: no redirects, every call names the worker and the wire version it means.

Turns have connections of their own (`exchange.py`): they are the hot path, and what they need of HTTP is little.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec

from berth_api import errors, wire
from berth_gateway.answer import BadAnswer
from berth_gateway.exchange import Exchange, Lost, Refused
from berth_gateway.settings import WorkerSettings

T = TypeVar("T")


class WorkerError(Exception):
    """A call that failed.

    WorkerError
    ├── WorkerGone      no answer, or one that no worker gives: it or its network is broken
    └── WorkerRefused   an error object with its type and members
    """


class WorkerGone(WorkerError):
    """`reason` is one word for events and metrics."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class WorkerRefused(WorkerError):
    """The worker said no."""

    def __init__(self, status: int, kind: str, message: str, members: dict[str, Any]) -> None:
        super().__init__(f"{status} {kind}: {message}")
        self.status = status
        self.type = kind
        self.message = message
        self.members = members


_REFUSALS: dict[str, type[errors.BerthError]] = {
    kind.type: kind for kind in (errors.InvalidRequest, errors.TooLong, errors.QueueFull, errors.Conflict)
}


_LEDGERS_FIELDS = frozenset({"history", "history_base", "parent"})
"""Parts of a turn that no client wrote."""


def as_refusal(refused: WorkerRefused) -> errors.BerthError:
    """Return the client's error for a request that the worker found at fault."""
    if refused.members.get("field") in _LEDGERS_FIELDS:
        return errors.HistoryLost(f"the ledger's history does not hold together: {refused.message}")
    kind = _REFUSALS.get(refused.type, errors.InvalidRequest)
    members = {k: v for k, v in refused.members.items() if k in ("field", "limit", "retry_after")}
    return kind(refused.message, **members)


class WorkerClient:
    """Made and closed on the event loop that uses it."""

    def __init__(self, settings: WorkerSettings, token: str | None) -> None:
        self.settings = settings
        headers = {wire.VERSION_HEADER: str(wire.WIRE_VERSION), "Accept-Encoding": "identity"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        self._small = aiohttp.ClientTimeout(total=settings.call_s, sock_connect=settings.connect_s)
        self._health = aiohttp.ClientTimeout(total=settings.health_s, sock_connect=settings.connect_s)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_S),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_s),
            auto_decompress=False,
            read_bufsize=1 << 18,
        )
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._open: set[Exchange] = set()
        self._idle: dict[str, list[Exchange]] = {}

    async def aclose(self) -> None:
        for exchange in list(self._open):
            exchange.close()
        await self._session.close()

    async def generate(
        self,
        worker: str,
        url: str,
        body: bytes,
        on_accepted: Callable[[], None],
        on_data: Callable[[bytes], T | None],
    ) -> T:
        """POST a turn; return what `on_data` makes of its stream, as `Exchange.post` has it.

        Raises `WorkerGone`, `WorkerRefused`, and what the two raise. Ended early, the turn is aborted at the worker.
        """
        parts = urlsplit(url)
        head = (
            f"POST {parts.path}/generate HTTP/1.1\r\nHost: {parts.netloc}\r\n{self._headers}"
            f"{wire.WORKER_HEADER}: {worker}\r\nContent-Type: {wire.TURN_CONTENT_TYPE}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        exchange = self._unused(url) or await self._connect(url)
        try:
            return await exchange.post(head.encode("latin-1"), body, on_accepted, on_data)
        except Lost as error:
            raise WorkerGone("connection_lost", str(error)) from None
        except BadAnswer as error:
            raise WorkerGone("garbled", str(error)) from None
        except Refused as refused:
            raise _refusal(refused.status, refused.body) from None

    def _unused(self, url: str) -> Exchange | None:
        idle = self._idle.get(url, [])
        while idle:
            exchange = idle.pop()
            if exchange.usable:
                return exchange
        return None

    async def _connect(self, url: str) -> Exchange:
        def idle(exchange: Exchange) -> None:
            self._idle.setdefault(url, []).append(exchange)

        def closed(exchange: Exchange) -> None:
            self._open.discard(exchange)
            kept = self._idle.get(url, [])
            if exchange in kept:
                kept.remove(exchange)
            if not kept:
                self._idle.pop(url, None)

        parts = urlsplit(url)
        secure = parts.scheme == "https"
        try:
            async with asyncio.timeout(self.settings.connect_s):
                _, exchange = await asyncio.get_running_loop().create_connection(
                    lambda: Exchange(idle, closed, _IDLE_S),
                    parts.hostname or "",
                    parts.port or (443 if secure else 80),
                    ssl=True if secure else None,
                )
        except TimeoutError as error:
            raise WorkerGone("timeout", "no connection in time") from error
        except (OSError, ValueError) as error:
            raise WorkerGone("connection_refused", str(error)) from error
        self._open.add(exchange)
        return exchange

    async def stop(self, worker: str, url: str, order: wire.StopRequest) -> bool:
        """Order a running turn to end now. False: it is not running there."""
        answer = await self._call("POST", worker, f"{url}/berth/stop", order)
        return bool(_member(answer, "found"))

    async def release(self, worker: str, url: str, order: wire.ReleaseRequest) -> bool:
        """Order a session's KV to be wiped."""
        answer = await self._call("POST", worker, f"{url}/berth/release", order)
        return bool(_member(answer, "released"))

    async def info(self, worker: str | None, url: str) -> wire.WorkerInfo:
        """Return the worker's own word about itself; `worker` None: whoever answers."""
        answer = await self._call("GET", worker, f"{url}/get_server_info")
        try:
            version = msgspec.json.decode(answer).get("berth", {}).get("wire")
            if version != wire.WIRE_VERSION:
                raise WorkerGone("wire_version", f"the worker speaks {version!r}, this gateway {wire.WIRE_VERSION}")
            return msgspec.json.decode(answer, type=_ServerInfo).berth
        except (msgspec.DecodeError, AttributeError, UnicodeDecodeError) as error:
            raise WorkerGone("garbled", f"/get_server_info: {error}") from None

    async def model(self, worker: str, url: str) -> wire.ModelInfo:
        answer = await self._call("GET", worker, f"{url}/berth/model")
        return _decode(answer, wire.ModelInfo, "/berth/model")

    async def file(self, worker: str, url: str, name: str) -> bytes:
        """Return one tokenizer file."""
        return await self._call("GET", worker, f"{url}/berth/model/files/{name}")

    async def healthy(self, url: str) -> bool:
        """Whether /health answers 200 in time."""
        try:
            async with self._session.get(f"{url}/health", allow_redirects=False, timeout=self._health) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def _call(self, method: str, worker: str | None, url: str, body: msgspec.Struct | None = None) -> bytes:
        headers = {wire.WORKER_HEADER: worker} if worker is not None else {}
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = msgspec.json.encode(body)
        try:
            async with self._session.request(
                method, url, data=data, headers=headers, allow_redirects=False, timeout=self._small
            ) as response:
                if response.status != 200:
                    raise _refusal(response.status, await self._bounded(response, 1 << 16))
                return await self._bounded(response, self.settings.file_bytes)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise WorkerGone(_why(error), str(error)) from error

    @staticmethod
    async def _bounded(response: aiohttp.ClientResponse, limit: int) -> bytes:
        data = bytearray()
        async for chunk in response.content.iter_any():
            data += chunk
            if len(data) > limit:
                raise WorkerGone("garbled", f"an answer of more than {limit} bytes")
        return bytes(data)


class _ServerInfo(msgspec.Struct):
    berth: wire.WorkerInfo


_IDLE_S = 30.0
"""How long an unused connection is kept: less than servers keep theirs, for a request must not meet a closing one."""


def _refusal(status: int, body: bytes) -> WorkerError:
    """Return what an error answer means."""
    if status == errors.WrongWorker.status:
        return WorkerGone("wrong_worker", "another worker answers at this address")
    try:
        error = msgspec.json.decode(body)["error"]
        kind, message = str(error["type"]), str(error["message"])
        members = {k: v for k, v in error.items() if k not in ("type", "message")}
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        return WorkerGone("garbled", f"status {status} without an error object")
    return WorkerRefused(status, kind, message, members)


def _decode(data: bytes, kind: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WorkerGone("garbled", f"{what}: {error}") from None


def _member(data: bytes, name: str) -> object:
    answer = _decode(data, dict[str, object], name)
    return answer.get(name)


def _why(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return "connection_refused"
    if isinstance(error, TimeoutError):
        return "timeout"
    return "connection_lost"
