"""A gateway in this process, stub workers beside it, a real Redis behind it."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from berth_gateway.app import Served, serve
from berth_gateway.ledger.settings import LedgerSettings
from berth_gateway.settings import (
    HttpSettings,
    ReaperSettings,
    Settings,
    StreamSettings,
    TurnSettings,
    WorkerSettings,
)

_STUB = Path(__file__).parents[1] / "bench" / "stub_worker.py"


def _load_stub():
    if "stub_worker" not in sys.modules:
        spec = importlib.util.spec_from_file_location("stub_worker", _STUB)
        module = importlib.util.module_from_spec(spec)
        sys.modules["stub_worker"] = module
        spec.loader.exec_module(module)
    return sys.modules["stub_worker"]


@pytest.fixture(scope="session")
def stub():
    """The stub worker's module."""
    return _load_stub()


@dataclass
class Event:
    """One server-sent event as a browser sees it."""

    name: str
    id: str
    data: dict[str, Any]


@dataclass
class Told:
    """What a stream said."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    problem: dict[str, Any] | None = None

    @property
    def names(self) -> list[str]:
        """Names of events; runs of tokens count as one."""
        names = [event.name for event in self.events]
        return [name for n, name in enumerate(names) if n == 0 or name != "token" or names[n - 1] != "token"]

    @property
    def ids(self) -> list[int]:
        return [token for event in self.events if event.name == "token" for token in event.data["ids"]]

    @property
    def text(self) -> str:
        return "".join(event.data["text"] for event in self.events if event.name == "token")

    @property
    def last(self) -> Event:
        return self.events[-1]

    def one(self, name: str) -> dict[str, Any]:
        found = [event.data for event in self.events if event.name == name]
        assert len(found) == 1, self.names
        return found[0]


def parse_events(text: str) -> list[Event]:
    events = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if fields:
            events.append(Event(fields["event"], fields["id"], json.loads(fields["data"])))
    return events


@dataclass
class Client:
    """Calls one gateway's two ports."""

    http: aiohttp.ClientSession
    served: Served

    async def call(self, method: str, path: str, body: Any = None, *, data: Any = None, **headers: str):
        """Return (status, decoded body, headers). `If_Match="x"` is sent as If-Match."""
        base = self.served.admin_url if path.startswith("/admin") else self.served.url
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.request(method, base + path, json=body, data=data, headers=sent) as answer:
            raw = await answer.read()
            decoded = json.loads(raw) if "json" in answer.content_type else raw
            return answer.status, decoded, answer.headers

    async def open(self, name: str = "a", **fields: Any) -> dict[str, Any]:
        status, body, _ = await self.call("POST", "/v1/sessions", {"name": name, **fields})
        assert status == 201, body
        return body

    async def turn(self, name: str = "a", *, headers: dict[str, str] | None = None, **body: Any) -> Told:
        """Stream one turn to its end."""
        told = Told()
        async for _ in self.stream(told, name, headers=headers, **body):
            pass
        return told

    async def stream(self, told: Told, name: str = "a", *, headers=None, **body: Any) -> AsyncIterator[Event]:
        url = f"{self.served.url}/v1/sessions/default/{name}/turns"
        async with self.http.post(url, json={"stream": True, **body}, headers=headers or {}) as answer:
            told.status, told.headers = answer.status, dict(answer.headers)
            if answer.status != 200:
                told.problem = json.loads(await answer.read())
                return
            text = ""
            async for chunk in answer.content.iter_any():
                text += chunk.decode()
                whole, _, text = text.rpartition("\n\n")
                for event in parse_events(whole):
                    told.events.append(event)
                    yield event


def ask(text: str = "hello", new: int = 8, **sampling: Any) -> dict[str, Any]:
    """The body of an ordinary turn."""
    return {"input": text, "sampling": {"max_new_tokens": new, "temperature": 0, **sampling}}


@pytest.fixture(name="ask")
def ask_fixture() -> Callable[..., dict[str, Any]]:
    return ask


FAST = Settings(
    redis_url="",
    http=HttpSettings(port=0, admin_port=0, body_bytes=1 << 20, body_s=1.0, drain_s=5.0),
    stream=StreamSettings(keep_alive_s=0.2),
    turn=TurnSettings(lease_s=2.0, capacity_wait_s=1.0, capacity_pause_s=0.05, commit_s=3.0, abort_s=1.0),
    worker=WorkerSettings(stall_s=0.3, health_s=0.2, suspect_s=1.0, connect_s=1.0, call_s=2.0),
    reaper=ReaperSettings(every_s=0.2),
    ledger=LedgerSettings(deadline_s=0.8, socket_timeout_s=0.5),
)
"""Times short enough for tests, long enough for a busy machine."""


@pytest.fixture
def fast() -> Settings:
    return FAST


@pytest.fixture
async def start_worker(stub):
    """Start stub workers: `await start_worker(step_s=0.01)` returns the stub, with its `url`."""
    async with AsyncExitStack() as stack:

        async def start(**options: Any):
            worker = stub.StubWorker(**options)
            runner = web.AppRunner(worker.app(), access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            worker.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            worker.runner = runner
            return worker

        yield start


@pytest.fixture
async def start_gateway(redis_url):
    """Start gateways in this process: `await start_gateway(settings)` returns a `Client`."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())

        async def start(settings: Settings = FAST, url: str | None = None) -> Client:
            served = await stack.enter_async_context(_served(replace(settings, redis_url=url or redis_url)))
            return Client(http, served)

        yield start


@asynccontextmanager
async def _served(settings: Settings) -> AsyncIterator[Served]:
    async with serve(replace(settings, http=replace(settings.http, drain_s=0.1))) as served:
        yield served


@pytest.fixture
def register():
    """Register a worker through the admin API, as the operator does."""

    async def put(client: Client, *workers: Any, fleet: str = "default", namespace: str = "default") -> None:
        for worker in workers:
            body = {"namespace": namespace, "fleet": fleet, "url": worker.url}
            status, answer, _ = await client.call("PUT", f"/admin/workers/{worker.id}", body)
            assert status == 200, answer

    return put


@dataclass
class Fleet:
    """One gateway and two workers; a session's first turn goes to `first` (it has more slots)."""

    client: Client
    first: Any
    second: Any


@pytest.fixture
async def fleet(start_gateway, start_worker, register) -> Fleet:
    client = await start_gateway()
    first, second = await start_worker(slots=16), await start_worker(slots=4)
    await register(client, first, second)
    return Fleet(client, first, second)


@pytest.fixture
def eventually():
    """Poll a condition; fail where it does not come true in time."""

    async def wait(condition: Callable[[], Any], what: str, within_s: float = 30.0) -> Any:
        deadline = asyncio.get_running_loop().time() + within_s
        while True:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            assert asyncio.get_running_loop().time() < deadline, f"waited in vain for {what}"
            await asyncio.sleep(0.01)

    return wait


@pytest.fixture
def expected_ids(stub):
    """The ids an unfailed run says: `expected_ids(history ids before, input ids, count, seed)`."""

    def run(before: bytes, asked: bytes, new: int, seed: int) -> list[int]:
        said: list[int] = []
        for _ in range(new):
            said.append(stub.next_token(before + asked + stub.pack(said), seed))
        return said

    return run
