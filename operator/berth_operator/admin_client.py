"""The gateways' admin API, seen from its only callers. Any gateway will do: they share one ledger.

A gateway that does not answer, or answers that it cannot now (5xx), is passed over for the next. Whoever answered last
is asked first, so that one dead gateway costs one timeout, not one a call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from berth_api.admin import FleetView, WorkerPut, WorkerView
from berth_operator.errors import AdminRefused, AdminUnavailable

T = TypeVar("T")


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

    async def workers(self) -> list[WorkerView]:
        """Return all registered workers of all fleets."""
        return _decode(await self._call("GET", "/admin/workers"), list[WorkerView])

    async def put_worker(self, worker_id: str, worker: WorkerPut) -> None:
        """Register a worker, or change what is known of it."""
        await self._call("PUT", f"/admin/workers/{quote(worker_id, safe='')}", msgspec.json.encode(worker))

    async def drop_worker(self, worker_id: str) -> None:
        """Forget a worker for good; one that is unknown already is fine."""
        try:
            await self._call("DELETE", f"/admin/workers/{quote(worker_id, safe='')}")
        except AdminRefused as refusal:
            if refusal.status != 404:
                raise

    async def fleet(self, namespace: str, name: str) -> FleetView:
        return _decode(await self._call("GET", f"/admin/fleets/{quote(namespace)}/{quote(name)}"), FleetView)

    async def _call(self, method: str, path: str, body: bytes | None = None) -> bytes:
        problems = []
        for url in self._order():
            try:
                answer = await self._ask(url, method, path, body)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                problems.append(f"{url}: {error or type(error).__name__}")
            except AdminUnavailable as error:
                problems.append(f"{url}: {error}")
            else:
                self._last = url
                return answer
        raise AdminUnavailable(f"no gateway answers: {'; '.join(problems) or 'none is known'}")

    def _order(self) -> list[str]:
        return sorted(self._urls(), key=lambda url: url != self._last)

    async def _ask(self, url: str, method: str, path: str, body: bytes | None) -> bytes:
        headers = self._headers | ({"Content-Type": "application/json"} if body is not None else {})
        request = self._http.request(
            method, f"{url}{path}", data=body, headers=headers, timeout=self._timeout, allow_redirects=False
        )
        async with request as answer:
            content = await answer.read()
            if answer.status < 300:
                return content
            problem = _problem(content)
            detail = str(problem.get("detail") or f"it answered {answer.status}")
            if answer.status >= 500:
                raise AdminUnavailable(detail)
            raise AdminRefused(detail, type_=str(problem.get("type", "")), status=answer.status)


def _problem(content: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except msgspec.MsgspecError:
        return {}


def _decode(content: bytes, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=type_)
    except msgspec.MsgspecError as error:
        raise AdminUnavailable(f"a gateway's answer makes no sense: {error}") from error
