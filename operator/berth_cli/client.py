"""A client of the gateways' public API, as `berth chat` and the demo need it.

A turn's stream outlives its gateway: when the connection breaks, the turn is sent again with the same idempotency key,
to the next gateway, with the id of the last event seen. Whoever gets it then knows whether the turn is done, still runs
or has to be run again, and sends only what is new.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from berth_api import public
from berth_api.public import HistoryView, SessionCreate, SessionView, TurnCreate
from berth_cli.errors import GatewayUnreachable, Refused
from berth_cli.sse import EventReader, ServerEvent

T = TypeVar("T")

TurnEvent = (
    public.TurnStarted
    | public.TurnToken
    | public.TurnMoved
    | public.TurnRestarted
    | public.TurnCommitted
    | public.TurnAborted
    | public.TurnUnknown
)
TERMINAL = (public.TurnCommitted, public.TurnAborted, public.TurnUnknown)

_KINDS: dict[str, Any] = {name: kind for kind, name in public.EVENT_NAMES.items()}
_BROKEN = (aiohttp.ClientError, TimeoutError, OSError)
_CONNECT_S = 5.0
_SILENCE_S = 60.0
"""The gateway sends a comment far more often; after this much silence it is gone."""
_RESUME_S = 30.0
"""How long a broken stream is tried again: longer than a dead gateway's lease."""
_PAUSE_S = 0.25


class GatewayClient:
    """Talks to any of several gateways of one fleet. Use it as an async context manager.

    Calls raise GatewayUnreachable when none answers and Refused when one says no.
    """

    def __init__(self, urls: Sequence[str], *, api_key: str | None = None) -> None:
        if not urls:
            raise ValueError("a client needs at least one gateway's URL")
        self._urls = [url.rstrip("/") for url in urls]
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_SILENCE_S)
        self._http = aiohttp.ClientSession(headers=self._headers, timeout=timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._http is not None:
            await self._http.close()

    async def create(self, session: SessionCreate) -> SessionView:
        return _decode(await self._call("POST", "/v1/sessions", session), SessionView)

    async def session(self, namespace: str, name: str) -> SessionView:
        return _decode(await self._call("GET", _path(namespace, name)), SessionView)

    async def sessions(self) -> list[SessionView]:
        """Return all sessions that the caller may see, by namespace and name."""
        found: list[SessionView] = []
        after: str | None = ""
        while after is not None:
            page = _decode(await self._call("GET", f"/v1/sessions?after={quote(after)}"), _Page)
            found += page.sessions
            after = page.next
        return found

    async def history(self, namespace: str, name: str) -> HistoryView:
        return _decode(await self._call("GET", f"{_path(namespace, name)}/history"), HistoryView)

    async def delete(self, namespace: str, name: str) -> None:
        """Close a session; one that runs a turn closes when that ends."""
        await self._call("DELETE", _path(namespace, name))

    async def stop(self, namespace: str, name: str, turn: str) -> None:
        """End a running turn now; what was said so far is committed."""
        await self._call("POST", f"{_path(namespace, name)}/turns/{turn}/stop")

    async def turn(self, namespace: str, name: str, turn: TurnCreate) -> AsyncGenerator[TurnEvent]:
        """Yield a turn's events up to the terminal one. Closed earlier, it hangs up, which ends the turn."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        body = msgspec.json.encode(msgspec.structs.replace(turn, stream=True))
        patience = _Patience(len(self._urls))
        while True:
            try:
                async with aclosing(self._stream(f"{_path(namespace, name)}/turns", body, headers)) as events:
                    async for event in events:
                        if event.id != headers.get("Last-Event-ID"):
                            headers["Last-Event-ID"] = event.id
                            patience.renew()
                        told = _turn_event(event)
                        yield told
                        if isinstance(told, TERMINAL):
                            return
                error: Exception = aiohttp.ClientPayloadError("the stream ended before the turn")
            except (*_BROKEN, Refused) as caught:
                error = caught
            patience.bear(error, self._urls[0])
            self._urls.append(self._urls.pop(0))
            await asyncio.sleep(_PAUSE_S)

    async def _stream(self, path: str, body: bytes, headers: Mapping[str, str]) -> AsyncGenerator[ServerEvent]:
        reader = EventReader()
        async with self._open.post(
            f"{self._urls[0]}{path}", data=body, headers={**headers, "Content-Type": "application/json"}
        ) as answer:
            await _raise_for(answer)
            async for data in answer.content.iter_any():
                for event in reader.feed(data):
                    yield event

    async def _call(self, method: str, path: str, body: msgspec.Struct | None = None) -> bytes:
        problem = ""
        for url in self._urls:
            try:
                return await self._ask(method, f"{url}{path}", body)
            except _BROKEN as error:
                problem = f"no gateway answers at {url}: {_why(error)}"
        raise GatewayUnreachable(problem)

    async def _ask(self, method: str, url: str, body: msgspec.Struct | None) -> bytes:
        data = None if body is None else msgspec.json.encode(body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        async with self._open.request(method, url, data=data, headers=headers) as answer:
            await _raise_for(answer)
            return await answer.read()

    @property
    def _open(self) -> aiohttp.ClientSession:
        if self._http is None:
            raise RuntimeError("the client is used outside of its context")
        return self._http


class _Patience:
    """Decides whether a turn is tried again.

    A gateway that cannot be reached has not begun it: each is tried once. Once it may have begun, it is tried until it
    is over, for as long as a dead gateway's lease may last.
    """

    def __init__(self, gateways: int) -> None:
        self._untried = gateways
        self._begun = False
        self._until: float | None = None

    def renew(self) -> None:
        """Hear that the turn goes on."""
        self._begun, self._until = True, None

    def bear(self, error: Exception, url: str) -> None:
        """Return if the turn should be tried again, else raise what is wrong."""
        if isinstance(error, Refused) and not (self._begun and error.type == "turn_in_flight"):
            raise error
        problem = (
            error if isinstance(error, Refused) else GatewayUnreachable(f"no gateway answers at {url}: {_why(error)}")
        )
        if not isinstance(error, aiohttp.ClientConnectorError):
            self._begun = True
        self._untried -= 1
        now = asyncio.get_running_loop().time()
        self._until = self._until or now + _RESUME_S
        if now > self._until or (not self._begun and self._untried <= 0):
            raise problem


class _Page(msgspec.Struct):
    """`next`: where the following page begins; None: there is none."""

    sessions: list[SessionView]
    next: str | None = None


def _path(namespace: str, name: str) -> str:
    # Whatever was typed stays one segment: `alice#2` must not mean alice.
    return f"/v1/sessions/{quote(namespace, safe='')}/{quote(name, safe='')}"


def _why(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or str(error)
    return str(error) or type(error).__name__


async def _raise_for(answer: aiohttp.ClientResponse) -> None:
    if answer.status < 300:
        return
    content = await answer.read()
    try:
        problem = msgspec.json.decode(content, type=dict[str, Any])
    except msgspec.MsgspecError:
        problem = {}
    wait = answer.headers.get("Retry-After", "")
    raise Refused(
        str(problem.get("detail") or f"{answer.url} answered {answer.status}"),
        type_=str(problem.get("type", "")),
        status=answer.status,
        retry_after_s=float(wait) if wait.replace(".", "", 1).isdigit() else None,
    )


def _turn_event(event: ServerEvent) -> TurnEvent:
    kind = _KINDS.get(event.name)
    if kind is None:
        raise GatewayUnreachable(f"the gateway sent an event that this client does not know: {event.name!r}")
    told: TurnEvent = _decode(event.data, kind)
    return told


def _decode(data: bytes, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=type_)
    except msgspec.MsgspecError as error:
        raise GatewayUnreachable(f"the gateway's answer makes no sense: {error}") from error
