"""The API server by plain HTTP: JSON in, JSON out, and watches that never miss a thing.

On purpose not the library that the operator uses: what tests read must not share its faults.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Self

import aiohttp

Object = dict[str, Any]

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"

UNREACHABLE = (aiohttp.ClientError, ConnectionError, TimeoutError)
"""What a client sees when the API server is gone."""
_RELIST_PAUSE_S = 0.2
_ATTEMPTS = 10
"""As Kubernetes' own clients have it, of a request that the API server wants to be asked again later."""


class ApiError(Exception):
    """The API server refused. `reason` is its own word: NotFound, Conflict, Forbidden, …; `causes` are the fields of
    an object that it will not have, and why."""

    def __init__(self, status: int, body: Any, what: str) -> None:
        said = body if isinstance(body, dict) else {}
        super().__init__(f"{what}: {status} {said.get('message', body)}")
        self.status = status
        self.reason = str(said.get("reason", ""))
        causes = said.get("details", {}).get("causes", [])
        self.causes: list[tuple[str, str]] = [(cause.get("field", ""), cause.get("message", "")) for cause in causes]


class Api:
    """One user's connection; used by `async with`."""

    def __init__(self, url: str, *, token: str | None = None, ca: Path | None = None) -> None:
        self.url = url
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._trust = ssl.create_default_context(cafile=str(ca)) if ca else True
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._trust, limit=0)
        self._http = aiohttp.ClientSession(self.url, headers=self._headers, connector=connector)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._http is not None
        await self._http.close()

    async def get(self, path: str) -> Object:
        return await self.call("GET", path)

    async def find(self, path: str) -> Object | None:
        """Return the object, None where there is none."""
        try:
            return await self.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list(self, path: str, **query: str) -> list[Object]:
        found: list[Object] = (await self.call("GET", path, query=query))["items"]
        return found

    async def create(self, path: str, body: Object) -> Object:
        return await self.call("POST", path, body)

    async def replace(self, path: str, body: Object) -> Object:
        return await self.call("PUT", path, body)

    async def patch(self, path: str, body: Object, kind: str = MERGE) -> Object:
        return await self.call("PATCH", path, body, kind=kind)

    async def delete(self, path: str, *, grace_s: int | None = None, uid: str | None = None) -> None:
        """Delete; an object that is gone, or is another one by its uid, is no error."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        try:
            await self.call("DELETE", path, options)
        except ApiError as error:
            if error.status not in {404, 409}:
                raise

    async def call(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        kind: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Object:
        """One request, made again where a 429 says when: an API server that has just started is ready before all of
        its storage is. Raises ApiError on a refusal.
        """
        assert self._http is not None
        data = None if body is None else json.dumps(body)
        timeout = aiohttp.ClientTimeout(total=30)
        for attempt in range(1, _ATTEMPTS + 1):
            async with self._http.request(
                method, path, data=data, params=query, headers={"Content-Type": kind}, timeout=timeout
            ) as answer:
                content = await answer.text()
                said = json.loads(content) if "json" in answer.content_type else {"text": content}
                if answer.status < 400:
                    return dict(said)
                later = answer.headers.get("Retry-After")
                if answer.status != 429 or later is None or attempt == _ATTEMPTS:
                    raise ApiError(answer.status, said, f"{method} {path}")
            await asyncio.sleep(float(later))
        raise AssertionError

    async def follow(self, path: str, **query: str) -> AsyncIterator[tuple[str, list[Object]]]:
        """Yield ("LIST", all objects), then ("ADDED" | "MODIFIED" | "DELETED", [object]); a LIST again after a gap."""
        while True:
            try:
                listed = await self.call("GET", path, query=query)
                yield "LIST", listed["items"]
                async for kind, item in self._watch(path, listed["metadata"]["resourceVersion"], query):
                    yield kind, [item]
            except (*UNREACHABLE, ApiError):
                await asyncio.sleep(_RELIST_PAUSE_S)

    async def _watch(self, path: str, version: str, query: Mapping[str, str]) -> AsyncIterator[tuple[str, Object]]:
        """Watch until the server ends it or has forgotten the version."""
        assert self._http is not None
        asked = {**query, "watch": "true", "resourceVersion": version}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        async with self._http.get(path, params=asked, timeout=timeout) as answer:
            rest = b""
            async for data in answer.content.iter_any():
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        return
                    yield event["type"], event["object"]
