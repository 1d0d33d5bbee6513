"""One worker process without a gateway before it, and a client of SGLang's native HTTP that times what it reads."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from fleetkit.procs import Process
from fleetkit.sse import ProtocolError


@dataclass
class Heard:
    """One streamed answer. Times are seconds since the request was sent; `first_s` is None without an output token."""

    ids: list[int] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)
    first_s: float | None = None
    total_s: float = 0.0

    @property
    def finish(self) -> str:
        """Why it ended; "" for a stream that was left."""
        return str((self.meta.get("finish_reason") or {}).get("type", ""))


@dataclass
class Native:
    """Speaks to one worker. A refusal is an answer where a caller asks for the status, else a `ProtocolError`."""

    http: aiohttp.ClientSession
    url: str
    process: Process

    async def ask(self, path: str, body: Any = None, *, method: str = "POST") -> tuple[int, Any]:
        """One request with a JSON body (bytes go as they are); return the status and the JSON answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        async with self.http.request(
            method, self.url + path, data=data if method == "POST" else None, headers=headers
        ) as answer:
            return answer.status, await answer.json()

    async def call(self, path: str, body: Any = None) -> Any:
        """POST that must be answered with 200; return the answer."""
        status, answer = await self.ask(path, body)
        if status != 200:
            raise ProtocolError(f"POST {path}: {status} {answer}")
        return answer

    async def open(self, capacity: int, **options: Any) -> str:
        """Open a streaming session; return its id."""
        name: str = await self.call("/open_session", {"capacity_of_str_len": capacity, "streaming": True, **options})
        return name

    async def close(self, session: str) -> None:
        await self.call("/close_session", {"session_id": session})

    async def memory(self) -> dict[str, Any]:
        """The worker's books."""
        status, info = await self.ask("/get_server_info", method="GET")
        if status != 200:
            raise ProtocolError(f"GET /get_server_info: {status} {info}")
        return dict(info["memory"])

    async def metrics(self) -> dict[str, float]:
        """Every sample of /metrics: by its name, and by `name{value}` where it has a label."""
        async with self.http.get(self.url + "/metrics") as answer:
            text = await answer.text()
        found = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                label = "".join(f"{{{value}}}" for value in sample.labels.values())
                found[sample.name + label] = sample.value
        return found

    async def stream(
        self, body: dict[str, Any], *, leave_after: int | None = None, begun: asyncio.Event | None = None
    ) -> Heard:
        """POST /generate and read its stream to the end, or hang up when `leave_after` output ids have come.

        `begun` is set at the first of them, and at the end.
        """
        heard, began = Heard(), time.monotonic()
        async with self.http.post(self.url + "/generate", json=body | {"stream": True}) as answer:
            if answer.status != 200:
                raise ProtocolError(f"POST /generate: {answer.status} {await answer.text()}")
            done = False
            async for line in answer.content:
                if line.startswith(b"data: "):
                    done = line.strip() == b"data: [DONE]"
                    if not done:
                        _take(heard, json.loads(line[6:]), time.monotonic() - began)
                    if begun is not None:
                        begun.set()
                if leave_after is not None and len(heard.ids) >= leave_after:
                    answer.close()
                    return heard
            if not done:
                raise ProtocolError(f"a stream without its last line: {heard}")
        heard.total_s = time.monotonic() - began
        return heard


def _take(heard: Heard, answer: dict[str, Any], at: float) -> None:
    """Take one cumulative answer."""
    if answer["output_ids"][: len(heard.ids)] != heard.ids:
        raise ProtocolError(f"a stream took ids back: {heard.ids} then {answer['output_ids']}")
    heard.ids, heard.meta = answer["output_ids"], answer["meta_info"]
    if heard.first_s is None and heard.ids:
        heard.first_s = at


@contextlib.asynccontextmanager
async def lone_worker(model: Path, args: Sequence[str], folder: Path, name: str = "worker") -> AsyncIterator[Native]:
    """Start a worker, yield its client, and have it drain. RuntimeError with its log when it does not end well."""
    command = [sys.executable, "-m", "berth_worker", "--model", str(model), "--port", "0", *args]
    process = await Process.start(name, command, folder / f"{name}.log")
    try:
        ready = await process.ready()
        limits = {"timeout": aiohttp.ClientTimeout(total=600), "read_bufsize": 1 << 20}
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), **limits) as http:
            yield Native(http, ready["url"], process)
    except BaseException:
        await process.stop(signal.SIGKILL)
        raise
    status = await process.stop()
    if status != 0:
        raise RuntimeError(f"{name} ended with {status}:\n{process.tail()}")
