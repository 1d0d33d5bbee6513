"""Calls to workers: one connection pool, no redirects, every call names the worker and the wire version it means."""

from __future__ import annotations

import io
from typing import Any, TypeVar

import aiohttp
import msgspec

from berth_api import errors, wire
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
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_s),
            auto_decompress=False,
            read_bufsize=1 << 18,
        )

    async def aclose(self) -> None:
        await self._session.close()

    async def generate(self, worker: str, url: str, body: bytes) -> aiohttp.ClientResponse:
        """POST a turn and return its accepted stream. Raises `WorkerGone`, `WorkerRefused`."""
        headers = {wire.WORKER_HEADER: worker, "Content-Type": wire.TURN_CONTENT_TYPE}
        try:
            response = await self._session.post(
                f"{url}/generate", data=_sendable(body), headers=headers, allow_redirects=False
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise WorkerGone(_why(error), str(error)) from error
        if response.status == 200:
            return response
        try:
            await self._refuse(response)
        finally:
            response.release()
        raise AssertionError("unreachable")

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
                    await self._refuse(response)
                return await self._bounded(response, self.settings.file_bytes)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise WorkerGone(_why(error), str(error)) from error

    async def _refuse(self, response: aiohttp.ClientResponse) -> None:
        """Raise what an error answer means."""
        if response.status == errors.WrongWorker.status:
            raise WorkerGone("wrong_worker", "another worker answers at this address")
        try:
            body = msgspec.json.decode(await self._bounded(response, 1 << 16))
            error = body["error"]
            kind, message = str(error["type"]), str(error["message"])
        except (aiohttp.ClientError, TimeoutError, OSError) as cause:
            raise WorkerGone(_why(cause), str(cause)) from cause
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
            raise WorkerGone("garbled", f"status {response.status} without an error object") from None
        members = {k: v for k, v in error.items() if k not in ("type", "message")}
        raise WorkerRefused(response.status, kind, message, members)

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


def _sendable(body: bytes) -> bytes | io.BytesIO:
    """Return a body that goes out in pieces where it is large: one write of megabytes holds up every other stream."""
    return body if len(body) <= _ONE_WRITE else io.BytesIO(body)


_ONE_WRITE = 1 << 18


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
