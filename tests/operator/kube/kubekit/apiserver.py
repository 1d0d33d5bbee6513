"""As much of an API server over HTTP as a watch wants: what there is, lists, streams of changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from berth_api.crd import GROUP, VERSION
from berth_operator.kube.store import Body

PLACES = {
    "inferencefleets": ("InferenceFleet", f"/apis/{GROUP}/{VERSION}"),
    "streamingsessions": ("StreamingSession", f"/apis/{GROUP}/{VERSION}"),
    "pods": ("Pod", "/api/v1"),
    "nodes": ("Node", "/api/v1"),
    "namespaces": ("Namespace", "/api/v1"),
    "events": ("Event", "/api/v1"),
}


class ApiServer:
    """`objects` are listed; `tell` streams a change to whoever watches; `refusals` of a kind are answered first.

    `asked` has all requests: method and path.
    """

    def __init__(self) -> None:
        self.objects: dict[str, list[Body]] = {plural: [] for plural in PLACES}
        self.asked: list[tuple[str, str]] = []
        self.refusals: dict[str, list[int]] = {}
        self._watching: dict[str, list[asyncio.Queue[Body]]] = {plural: [] for plural in PLACES}

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """Listen for as long as the body runs; the value is the URL."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        # A stream ends with its reader: Kopf waits for all tasks that were begun after it, ours too.
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    def watched(self, plural: str) -> int:
        """Return how many streams are open."""
        return len(self._watching[plural])

    def tell(self, plural: str, type_: str, body: Body) -> None:
        for queue in self._watching[plural]:
            queue.put_nowait({"type": type_, "object": {"kind": PLACES[plural][0], **body}})

    def writes(self) -> list[tuple[str, str]]:
        return [asked for asked in self.asked if asked[0] != "GET"]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path.rstrip("/")
        self.asked.append((request.method, path))
        plural = path.rpartition("/")[2]
        if plural not in PLACES:
            return web.json_response(_discovery(path))
        if self.refusals.get(plural):
            status = self.refusals[plural].pop()
            return web.json_response({"kind": "Status", "message": "not now", "code": status}, status=status)
        if "watch" in request.query:
            return await self._stream(request, plural)
        meta = {"resourceVersion": "100"}
        return web.json_response({"kind": f"{PLACES[plural][0]}List", "metadata": meta, "items": self.objects[plural]})

    async def _stream(self, request: web.Request, plural: str) -> web.StreamResponse:
        queue: asyncio.Queue[Body] = asyncio.Queue()
        stream = web.StreamResponse(headers={"Content-Type": "application/json"})
        await stream.prepare(request)
        self._watching[plural].append(queue)
        try:
            while True:
                event = await queue.get()
                await stream.write(json.dumps(event).encode() + b"\n")
        finally:
            self._watching[plural].remove(queue)


def _discovery(path: str) -> dict[str, Any]:
    if path == "/api":
        return {"versions": ["v1"]}
    if path == "/apis":
        version = {"groupVersion": f"{GROUP}/{VERSION}", "version": VERSION}
        return {"groups": [{"name": GROUP, "versions": [version], "preferredVersion": version}]}
    here = [(plural, kind) for plural, (kind, root) in PLACES.items() if root == path]
    verbs = ["create", "delete", "get", "list", "patch", "watch"]
    return {
        "resources": [
            {
                "name": plural,
                "singularName": kind.lower(),
                "namespaced": plural not in ("nodes", "namespaces"),
                "kind": kind,
                "verbs": verbs,
            }
            for plural, kind in here
        ]
    }
