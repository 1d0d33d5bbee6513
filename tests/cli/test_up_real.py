"""`berth up` with the real parts: what it keeps alive, a session never notices for long.

One fleet for all tests; each breaks something else and leaves it mended.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pytest

from berth_api.public import SessionCreate, TurnCommitted, TurnCreate, TurnMoved, TurnToken
from berth_api.wire import Sampling
from berth_cli.client import GatewayClient
from berth_cli.errors import GatewayError
from berth_operator.local.state_dir import FleetFile, read_fleet

PATIENCE_S = 60.0
LONG = TurnCreate(input_ids=list(range(32, 64)), sampling=Sampling(max_new_tokens=200, temperature=0, ignore_eos=True))
SHORT = TurnCreate(input_ids=list(range(64, 80)), sampling=Sampling(max_new_tokens=4, temperature=0, ignore_eos=True))


class Up:
    """A `berth up --json`, its ready line and its state directory."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.start()

    def start(self) -> None:
        """Start it and wait for its ready line."""
        command = [sys.executable, "-m", "berth_cli", "up", "--json", "--state-dir", str(self.state_dir)]
        command += ["--gateways", "2", "--slots", "4", "--lease-s", "1.5"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = _pipe(self.process.stdout).readline()
        if not line:
            pytest.fail(f"berth up ended: {_pipe(self.process.stderr).read()}")
        self.ready: dict[str, Any] = json.loads(line)

    @property
    def now(self) -> FleetFile:
        return read_fleet(self.state_dir)

    def client(self) -> GatewayClient:
        return GatewayClient(self.ready["gateways"])

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        _, _ = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode


def _pipe(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise RuntimeError("started without pipes")
    return stream


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    fleet = Up(tmp_path_factory.mktemp("up") / "state")
    try:
        yield fleet
    finally:
        fleet.end()


async def say(client: GatewayClient, name: str, turn: TurnCreate) -> tuple[list[int], TurnCommitted]:
    """Say a turn; returns its ids and the commit."""
    ids: list[int] = []
    async for event in client.turn("default", name, turn):
        if isinstance(event, TurnToken):
            ids += event.ids
        last = event
    assert isinstance(last, TurnCommitted)
    return ids, last


async def patiently(client: GatewayClient, name: str, turn: TurnCreate) -> tuple[list[int], TurnCommitted]:
    """Say a turn as soon as somebody takes it."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with suppress(GatewayError):
                return await say(client, name, turn)
            await asyncio.sleep(0.1)


async def test_the_ready_line_is_the_whole_fleet(up: Up) -> None:
    assert up.ready["event"] == "ready"
    assert up.ready["gateway"] == up.ready["gateways"][0]
    assert len(up.ready["workers"]) == 2
    assert up.ready["redis"].startswith("redis://127.0.0.1:")
    async with up.client() as client:
        session = await client.create(SessionCreate())
        await say(client, session.name, SHORT)
        assert (await client.session("default", session.name)).worker in {w["id"] for w in up.ready["workers"]}


async def test_an_answer_outlives_its_worker(up: Up) -> None:
    async with up.client() as client:
        whole, _ = await say(client, (await client.create(SessionCreate())).name, LONG)
        session = await client.create(SessionCreate())
        ids: list[int] = []
        moved = None
        async for event in client.turn("default", session.name, LONG):
            if isinstance(event, TurnToken):
                if not ids:
                    worker = (await client.session("default", session.name)).worker
                    os.kill(next(entry.pid for entry in up.now.workers if entry.id == worker), signal.SIGKILL)
                ids += event.ids
            elif isinstance(event, TurnMoved):
                moved = event
        assert moved is not None
        assert (moved.from_, ids) == (worker, whole)
    died, new = (json.loads(_pipe(up.process.stdout).readline()) for _ in range(2))
    assert (died["event"], died["id"]) == ("worker_died", worker)
    assert new["event"] == "worker"


async def test_an_answer_outlives_its_gateway(up: Up) -> None:
    async with up.client() as client:
        session = await client.create(SessionCreate())
        ids: list[int] = []
        async for event in client.turn("default", session.name, LONG):
            if isinstance(event, TurnToken):
                if not ids:
                    os.kill(up.now.gateways[0].pid, signal.SIGKILL)
                ids += event.ids
        assert len(ids) == 200
    async with GatewayClient(up.ready["gateways"][:1]) as back_where_it_was:
        await patiently(back_where_it_was, session.name, SHORT)


async def test_a_session_outlives_redis(up: Up) -> None:
    async with up.client() as client:
        session = await client.create(SessionCreate())
        _, first = await say(client, session.name, SHORT)
        os.kill(up.now.redis.pid, signal.SIGKILL)
        _, second = await patiently(client, session.name, SHORT)
        assert [turn.head for turn in (await client.history("default", session.name)).turns] == [
            first.head,
            second.head,
        ]


async def test_sessions_are_found_again_after_a_restart(up: Up) -> None:
    async with up.client() as client:
        session = await client.create(SessionCreate())
        _, first = await say(client, session.name, SHORT)
    assert up.end() == 0
    up.start()
    async with up.client() as client:
        assert (await client.session("default", session.name)).head == first.head
        _, second = await say(client, session.name, SHORT)
        assert second.turn_index == first.turn_index + 1
