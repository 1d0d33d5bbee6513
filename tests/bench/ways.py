"""The ways from a client to one paced worker, for the gateway's benches: directly, through nginx, through a gateway."""

from __future__ import annotations

import struct
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec
import nginx

from berth_api import wire
from fleetkit.client import Client, greedy
from fleetkit.models import write_random_llama
from fleetkit.procs import Process, port_of
from fleetkit.proxy import Proxy
from fleetkit.rig import Rig, Worker

HERE = Path(__file__).resolve().parent
INPUT = [1] * 16


@dataclass(frozen=True)
class Post:
    """One turn to ask for: plain HTTP, ready to be sent. `token` is found in each event that holds a token."""

    url: str
    headers: dict[str, str]
    body: bytes
    token: bytes


@dataclass(frozen=True)
class Way:
    """`session()` opens a conversation and returns what makes its turns, of so many tokens each.

    `pid` is the process in between, None where there is none.
    """

    name: str
    pid: int | None
    session: Callable[[], Awaitable[Callable[[int], Post]]]


def cpu_s(pid: int) -> float:
    """Return the seconds of processor that a process has used, all its threads together."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()) / 1e9


@asynccontextmanager
async def ways(interval_ms: float) -> AsyncIterator[list[Way]]:
    """Start a worker that says a token every so often, and what may stand before it; yield the ways to it."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="berth-ways-")))
        model = write_random_llama(folder / "model")
        # No proxy on any wire: it would be measured too.
        rig = Rig(folder / "rig", str(model), direct=True)
        command = [sys.executable, str(HERE / "paced_worker.py"), "--model", str(model)]
        command += ["--interval-ms", str(interval_ms)]
        process = await Process.start("paced", command, folder / "paced.log")
        stack.push_async_callback(process.stop)
        ready = await process.ready()
        stack.push_async_callback(rig.close)
        await rig.start_redis()
        await rig.add_gateways(1)
        await rig.register(Worker(process, ready["id"], ready["url"], Proxy(port_of(ready["url"]))))
        before = await stack.enter_async_context(nginx.before(port_of(ready["url"]), folder / "nginx"))
        found = [Way("direct", None, _plain(ready["url"], ready["id"]))]
        if before is not None:
            found.append(Way("nginx", before[0], _plain(before[1], ready["id"])))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        client = Client(http, rig.gateways[0].url)
        found.append(Way("gateway", rig.gateways[0].pid, _sessions(client)))
        yield found


def _plain(url: str, worker: str) -> Callable[[], Awaitable[Callable[[int], Post]]]:
    headers = {
        "Content-Type": wire.TURN_CONTENT_TYPE,
        wire.WORKER_HEADER: worker,
        wire.VERSION_HEADER: str(wire.WIRE_VERSION),
    }

    def post(tokens: int) -> Post:
        order = wire.TurnRequest(
            session="default/direct",
            uid=str(uuid.uuid4()),
            turn=str(uuid.uuid4()),
            epoch=1,
            attempt=1,
            parent="",
            input_ids=struct.pack(f"<{len(INPUT)}i", *INPUT),
            seed=0,
            sampling=wire.Sampling(max_new_tokens=tokens, temperature=0, ignore_eos=True),
            fingerprint="paced",
        )
        return Post(f"{url}/generate", headers, msgspec.msgpack.encode(order), b'"event":"tokens"')

    async def session() -> Callable[[int], Post]:
        return post

    return session


def _sessions(client: Client) -> Callable[[], Awaitable[Callable[[int], Post]]]:
    async def session() -> Callable[[int], Post]:
        url = f"{client.base}{client.path((await client.open())['name'])}/turns"

        def post(tokens: int) -> Post:
            body = msgspec.json.encode({**greedy(INPUT, tokens), "stream": True})
            return Post(url, {"Content-Type": "application/json"}, body, b"event: token\n")

        return post

    return session
