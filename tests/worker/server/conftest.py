"""A worker behind a real socket, with a fake runner inside."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
import pytest

from berth_api.wire import TURN_CONTENT_TYPE, ModelInfo, Sampling, TurnRequest
from berth_worker.engine.engine import Engine
from berth_worker.server.app import Server, bind
from berth_worker.server.served import Served
from berth_worker.settings import CacheSettings, ModelSettings, ServerSettings, Settings
from workerkit.driver import FINGERPRINT, Driver, pack
from workerkit.fakes import BOS, EOS, VOCAB, FakeTokenizer
from workerkit.sse import events

WORKER_ID = "pod.boot"


@dataclass
class Worker:
    """A worker with a fake runner behind a real socket."""

    driver: Driver
    engine: Engine
    server: Server
    url: str
    http: aiohttp.ClientSession

    async def post(self, path: str, body: Any = None, **options) -> tuple[int, Any]:
        """POST JSON (or raw bytes); return status and the JSON answer."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        options["headers"] = {"Content-Type": "application/json"} | options.get("headers", {})
        async with self.http.post(self.url + path, data=io.BytesIO(raw), **options) as response:
            assert response.content_type == "application/json", await response.text()
            return response.status, await response.json()

    async def get(self, path: str, **options) -> tuple[int, Any]:
        async with self.http.get(self.url + path, **options) as response:
            return response.status, await response.json()

    async def turn(self, uid: str, ids: list[int], parent: str = "", *, epoch: int = 1, attempt: int = 1, **options):
        """POST a turn; return (status, events or the error)."""
        async with self.open_turn(uid, ids, parent, epoch=epoch, attempt=attempt, **options) as response:
            if response.status != 200:
                return response.status, (await response.json())["error"]
            return 200, [event async for event in events(response)]

    def open_turn(self, uid: str, ids: list[int], parent: str = "", *, headers=None, new: int = 4, **options):
        """Start a turn; the response is the caller's to read."""
        defaults = {"turn": "t", "epoch": 1, "attempt": 1, "seed": 7, "fingerprint": FINGERPRINT}
        defaults["sampling"] = Sampling(max_new_tokens=new)
        request = TurnRequest(
            session=f"default/{uid}", uid=uid, parent=parent, input_ids=pack(ids), **(defaults | options)
        )
        return self.http.post(
            self.url + "/generate",
            data=msgspec.msgpack.encode(request),
            headers={"Content-Type": TURN_CONTENT_TYPE, "X-Berth-Wire": "1", **(headers or {})},
        )

    async def memory(self) -> dict[str, Any]:
        return (await self.get("/get_server_info"))[1]["memory"]


@pytest.fixture
def driver() -> Driver:
    return Driver()


@pytest.fixture
def server_settings() -> ServerSettings:
    """Overridden where a test needs other limits."""
    return ServerSettings(body_limit=1 << 20)


@pytest.fixture
async def worker(driver, server_settings, tmp_path) -> AsyncIterator[Worker]:
    engine = Engine(driver.core, tick_s=0.01)
    file = tmp_path / "tokenizer.json"
    file.write_text("{}")
    model = ModelInfo("fake", FINGERPRINT, VOCAB, 200, BOS, [EOS], {"tokenizer.json": "00"})
    settings = Settings(ModelSettings("fake"), CacheSettings(slots=4), server=server_settings)
    served = Served(WORKER_ID, engine, FakeTokenizer(), model, {"tokenizer.json": file}, settings, {"page_size": 4})
    server = Server(served)
    url = await server.start(bind("127.0.0.1", 0))
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(20)) as http:
        yield Worker(driver, engine, server, url, http)
    await server.stop()
    assert driver.runner.wrong is None


@pytest.fixture
def gate(driver) -> Iterator[threading.Event]:
    """An open gate that every step passes; shut it (`clear`) and the engine stands still inside its next step."""
    gate, step = threading.Event(), driver.runner.step
    gate.set()
    driver.runner.step = lambda batch: (gate.wait(10), step(batch))[1]
    yield gate
    gate.set()
