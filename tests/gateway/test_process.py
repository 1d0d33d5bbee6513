"""A gateway as a process: its flags, its ready line, its signals, and its death at every moment of a turn."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from berth_gateway.__main__ import main


@dataclass
class Process:
    """A gateway process; `client` speaks to it."""

    process: asyncio.subprocess.Process
    client: Any

    def kill(self) -> None:
        self.process.kill()


async def launch(*flags: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "berth_gateway", *flags, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )


@pytest.fixture
async def start_process(start_gateway):
    """Start gateway processes on a Redis: `await start_process(url)`."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        client_of = type(await start_gateway())

        async def start(redis: str, *flags: str) -> Process:
            fixed = ("--port", "0", "--admin-port", "0", "--no-auth", "--lease-s", "1", "--capacity-wait-s", "1")
            process = await launch("--redis", redis, *fixed, *flags)
            stack.push_async_callback(_end, process)
            ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 30))
            assert (ready["event"], ready["pid"]) == ("ready", process.pid)
            return Process(process, client_of(http, SimpleNamespace(url=ready["url"], admin_url=ready["admin"])))

        yield start


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.communicate()


@pytest.fixture
async def rig(redis_url, start_process, start_gateway, start_worker, register):
    """A gateway process to kill, a gateway that survives it, and one worker."""
    doomed, other = await asyncio.gather(start_process(redis_url), start_gateway())
    worker = await start_worker(step_s=0.01)
    await register(other, worker)
    await other.open()
    return doomed, other, worker


async def settle(other, ask, eventually, key: str):
    """Send the turn again until it is told what became of it."""

    async def again():
        told = await other.turn(**ask(new=30), headers={"Idempotency-Key": key})
        assert told.status == 200 or told.problem["type"] == "turn_in_flight"
        return told if told.status == 200 else None

    return await eventually(again, "the dead gateway's lease to end")


@pytest.mark.parametrize("said", [0, 15])
async def test_killed_mid_turn_the_same_key_elsewhere_settles_it(rig, ask, eventually, said):
    doomed, other, worker = rig
    seen = []

    def kill(turn, count):
        if count == said and not seen:
            seen.append(turn)
            doomed.kill()

    worker.gate = kill
    with pytest.raises(aiohttp.ClientError):
        await doomed.client.turn(**ask(new=30), headers={"Idempotency-Key": "k"})
    told = await settle(other, ask, eventually, "k")
    assert (told.last.name, told.last.data["turn_index"], len(told.ids)) == ("turn.committed", 0, 30)
    assert (await other.call("GET", "/v1/sessions/default/a"))[1]["turns"] == 1
    again = worker.seen[-1]
    assert (again.turn, again.seed, again.parent) == (seen[0].turn, seen[0].seed, "")
    assert again.epoch > seen[0].epoch


async def test_what_a_dead_gateways_client_saw_is_not_sent_twice(rig, ask, eventually):
    doomed, other, worker = rig
    worker.gate = lambda _turn, count: doomed.kill() if count == 15 else None
    told = type(await other.turn("nobody"))()
    with pytest.raises(aiohttp.ClientError):
        async for _ in doomed.client.stream(told, **ask(new=30), headers={"Idempotency-Key": "k"}):
            pass
    worker.gate = None

    async def again():
        headers = {"Idempotency-Key": "k", "Last-Event-ID": told.last.id}
        rerun = await other.turn(**ask(new=30), headers=headers)
        return rerun if rerun.status == 200 else None

    rerun = await eventually(again, "the dead gateway's lease to end")
    assert rerun.names == ["turn.started", "token", "turn.committed"]
    assert len(told.ids + rerun.ids) == 30
    view = (await other.call("GET", f"/v1/sessions/default/a/turns/{rerun.last.data['turn']}"))[1]
    assert view["output_ids"] == told.ids + rerun.ids
    assert view["text"] == told.text + rerun.text


async def test_a_frozen_gateway_does_not_commit_over_its_successor(rig, ask, eventually):
    doomed, other, worker = rig
    freeze = [lambda: doomed.process.send_signal(signal.SIGSTOP)]
    worker.gate = lambda _turn, count: freeze.pop()() if count == 10 and freeze else None
    running = asyncio.create_task(doomed.client.turn(**ask(new=30)))
    await eventually(lambda: not freeze, "the gateway to freeze")

    async def mine():
        told = await other.turn(**ask("mine", new=2))
        return told if told.status == 200 else None

    winner = await eventually(mine, "the frozen gateway's lease to end")
    doomed.process.send_signal(signal.SIGCONT)
    loser = await running
    assert winner.last.name == "turn.committed"
    assert loser.last.name == "turn.aborted"
    history = (await other.call("GET", "/v1/sessions/default/a/history"))[1]
    assert [turn["head"] for turn in history["turns"]] == [winner.last.data["head"]]


async def test_told_to_stop_it_lets_its_turns_finish(rig, ask, eventually):
    doomed, other, worker = rig
    running = asyncio.create_task(doomed.client.turn(**ask(new=60)))
    await eventually(lambda: worker.running, "the turn to run")
    doomed.process.terminate()
    told = await running
    assert told.last.name == "turn.committed"
    assert await asyncio.wait_for(doomed.process.wait(), 10) == 0
    assert (await other.call("GET", "/v1/sessions/default/a"))[1]["turns"] == 1


async def test_a_turn_longer_than_the_drain_is_aborted(redis_url, rig, start_process, ask, eventually):
    _, other, worker = rig
    short = await start_process(redis_url, "--drain-s", "0.2")
    running = asyncio.create_task(short.client.turn(**ask(new=3000)))
    await eventually(lambda: worker.running, "the turn to run")
    short.process.terminate()
    told = await running
    assert (told.last.name, told.last.data["reason"]) == ("turn.aborted", "gateway_shutdown")
    assert await asyncio.wait_for(short.process.wait(), 10) == 0
    assert (await other.turn(**ask())).status == 200


async def test_redis_down_at_the_start_is_no_reason_not_to_start(own_redis, start_process, eventually):
    own_redis.kill()
    gateway = await start_process(own_redis.url)
    assert (await gateway.client.call("GET", "/healthz"))[0] == 200
    status, problem, _ = await gateway.client.call("GET", "/readyz")
    assert (status, problem["status"]) == (503, 503)
    assert (await gateway.client.call("POST", "/v1/sessions", {}))[1]["type"] == "ledger_unavailable"
    own_redis.start()

    async def ready():
        return (await gateway.client.call("GET", "/readyz"))[0] == 200

    await eventually(ready, "Redis to be found")


async def test_a_port_that_is_taken_is_named(redis_url):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        process = await launch("--redis", redis_url, "--no-auth", "--port", port, "--admin-port", "0")
        _, said = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    assert port in said.decode()
    assert "in use" in said.decode()
    assert "Traceback" not in said.decode()


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        ("", "one of the arguments --api-keys --no-auth is required"),
        ("--no-auth --api-keys {keys}", "not allowed with"),
        ("--api-keys {keys}", "would leave the admin port open"),
        ("--api-keys {keys} --admin-token-file {empty}", "holds no token"),
        ("--api-keys {keys} --admin-token-file {absent}", "absent"),
        ("--no-auth --lease-s -1", "lease-s"),
        ("--no-auth --max-moves x", "max-moves"),
        ("--no-auth --rate-limit 0", "rate-limit"),
        ("--no-auth --rate-limit -1", "rate-limit"),
        ("--no-auth --rate-limit nan", "rate-limit"),
        ("--no-auth --rate-limit inf", "rate-limit"),
    ],
)
def test_what_it_does_not_start_with(tmp_path, capsys, flags, word):
    keys, empty = tmp_path / "keys.json", tmp_path / "empty"
    keys.write_text('{"keys": []}')
    empty.write_text("\n")
    words = flags.format(keys=keys, empty=empty, absent=tmp_path / "absent").split()
    with pytest.raises(SystemExit) as caught:
        main(["--redis", "redis://127.0.0.1:1", *words])
    assert caught.value.code in {1, 2}
    assert word in capsys.readouterr().err
