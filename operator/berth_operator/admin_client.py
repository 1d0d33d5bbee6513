"""The gateways' admin API, seen from its only callers. Any gateway will do: they share one ledger.

A gateway that does not answer, or answers that it cannot now (5xx) or that it does not know us (401), is passed over
for the next. Whoever answered last is asked first, so that one dead gateway costs one timeout, not one a call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
import msgspec

from berth_api import errors
from berth_api.admin import (
    AdminSession,
    AdminSessions,
    Changes,
    FleetView,
    Namespaces,
    SessionPut,
    WorkerFound,
    WorkerPut,
    WorkerView,
)
from berth_api.public import Origin
from berth_operator.errors import AdminRefused, AdminUnavailable, CursorGone

T = TypeVar("T")

_PAGE = 1000
"""Most sessions or changes in one answer."""


class _Answer(NamedTuple):
    status: int
    content: bytes


class AdminClient:
    """Calls raise AdminUnavailable when no gateway can answer, AdminRefused when one says no.

    `urls` gives the base URLs of the gateways' admin ports as they are now. The HTTP session is the caller's.
    """

    def __init__(
        self, urls: Callable[[], Sequence[str]], token: str, http: aiohttp.ClientSession, *, timeout_s: float
    ) -> None:
        self._urls = urls
        self._http = http
        self._headers = {"Authorization": f"Bearer {token}"}
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._last: str | None = None

    # Workers --------------------------------------------------------------------------------------------------------

    async def workers(self) -> list[WorkerView]:
        """Return all registered workers of all fleets."""
        return await self._get("/admin/workers", list[WorkerView])

    async def put_worker(self, worker_id: str, worker: WorkerPut) -> None:
        """Register a worker, or change what is known of it."""
        await self._call("PUT", _path("workers", worker_id), worker)

    async def register_worker(self, found: WorkerFound) -> WorkerView:
        """Register the worker of a pod, whose id only itself knows.

        A worker that cannot be asked yet is AdminUnavailable, one of another pod AdminRefused (400, its `field` url).
        """
        return _decode(await self._call("POST", "/admin/workers", found), WorkerView)

    async def drop_worker(self, worker_id: str) -> None:
        """Forget a worker for good; one that is unknown already is fine."""
        await self._delete(_path("workers", worker_id))

    async def fleet(self, namespace: str, name: str) -> FleetView:
        """Return a fleet as the ledger counts it. One that never had a worker is AdminRefused (`no_such_fleet`)."""
        return await self._get(_path("fleets", namespace, name), FleetView)

    # Sessions -------------------------------------------------------------------------------------------------------

    async def namespaces(self) -> list[str]:
        """Return the namespaces that ever had a worker: there are no sessions elsewhere."""
        return (await self._get("/admin/namespaces", Namespaces)).namespaces

    async def sessions(self, namespace: str, origin: Origin | None = None) -> list[AdminSession]:
        """Return all sessions of a namespace by name, however many pages that takes."""
        asked: dict[str, Any] = {"namespace": namespace, "limit": _PAGE}
        if origin is not None:
            asked["origin"] = origin
        found: list[AdminSession] = []
        while True:
            page = await self._get(f"/admin/sessions?{urlencode(asked)}", AdminSessions)
            found += page.sessions
            if page.next is None:
                return found
            asked["after"] = page.next

    async def session(self, namespace: str, name: str) -> AdminSession:
        """Return a session. One that is not there is AdminRefused (`no_such_session`)."""
        return await self._get(_path("sessions", namespace, name), AdminSession)

    async def put_session(self, namespace: str, name: str, session: SessionPut) -> AdminSession:
        """Have the session that a resource wants.

        AdminRefused says why not by its type: `session_exists` (a client made one of that name), `session_closing`
        (members `reason`, and `closed` where this uid is gone for good), `no_such_fleet`.
        """
        return _decode(await self._call("PUT", _path("sessions", namespace, name), session), AdminSession)

    async def close_session(self, namespace: str, name: str, uid: str) -> bool:
        """Close the session of a resource that is gone; True: when its turn ends. One that is not there is fine."""
        answer = await self._delete(f"{_path('sessions', namespace, name)}?{urlencode({'uid': uid})}")
        return answer is not None and answer.status == 202

    async def changes(self, namespace: str, after: str | None = None) -> Changes:
        """Return what moved since a cursor; None: the cursor of now. Raises CursorGone where all must be listed again.

        Not necessarily all of it: ask again after the new cursor until there is nothing more.
        """
        asked = {"namespace": namespace, "limit": str(_PAGE)} | ({"after": after} if after is not None else {})
        try:
            return await self._get(f"/admin/changes?{urlencode(asked)}", Changes)
        except AdminRefused as refusal:
            if refusal.type != errors.CursorGone.type:
                raise
            raise CursorGone(
                str(refusal), type_=refusal.type, status=refusal.status, members=refusal.members
            ) from refusal

    # Calls ----------------------------------------------------------------------------------------------------------

    async def _get(self, path: str, type_: type[T]) -> T:
        return _decode(await self._call("GET", path), type_)

    async def _delete(self, path: str) -> _Answer | None:
        """None: it is not there."""
        try:
            return await self._call("DELETE", path)
        except AdminRefused as refusal:
            if refusal.status != 404:
                raise
            return None

    async def _call(self, method: str, path: str, message: msgspec.Struct | None = None) -> _Answer:
        body = msgspec.json.encode(message) if message is not None else None
        problems = []
        for url in self._order():
            try:
                answer = await self._ask(url, method, path, body)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                problems.append(f"{url}: {str(error) or type(error).__name__}")
            except AdminUnavailable as error:
                problems.append(f"{url}: {error}")
            else:
                self._last = url
                return answer
        raise AdminUnavailable(f"no gateway answers: {'; '.join(problems) or 'none is known'}")

    def _order(self) -> list[str]:
        return sorted(self._urls(), key=lambda url: url != self._last)

    async def _ask(self, url: str, method: str, path: str, body: bytes | None) -> _Answer:
        headers = self._headers | ({"Content-Type": "application/json"} if body is not None else {})
        request = self._http.request(
            method, f"{url}{path}", data=body, headers=headers, timeout=self._timeout, allow_redirects=False
        )
        async with request as answer:
            content = await answer.read()
            if answer.status < 300:
                return _Answer(answer.status, content)
            problem = _problem(content)
            detail = str(problem.pop("detail", "") or f"it answered {answer.status}")
            if answer.status >= 500 or answer.status in (401, 403):
                # One that does not take our token says nothing about what was asked.
                raise AdminUnavailable(detail)
            type_ = str(problem.pop("type", ""))
            raise AdminRefused(detail, type_=type_, status=answer.status, members=problem)


def _path(*parts: str) -> str:
    return "/admin/" + "/".join(quote(part, safe="") for part in parts)


def _problem(content: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except msgspec.MsgspecError:
        return {}


def _decode(answer: _Answer, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(answer.content, type=type_)
    except msgspec.MsgspecError as error:
        raise AdminUnavailable(f"a gateway's answer makes no sense: {error}") from error
