"""Clients that read slowly, or go at an awkward moment: they hold neither memory, nor a worker, nor the session."""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import replace
from urllib.parse import urlsplit

import aiohttp
import pytest

from berth_gateway.settings import StreamSettings
from berth_gateway.turn import Turn


@pytest.fixture
async def strict(start_gateway, start_worker, register, fast):
    """A gateway that has little patience with slow readers, and its worker."""
    client = await start_gateway(replace(fast, stream=StreamSettings(buffer_bytes=1 << 12, write_s=0.2)))
    worker = await start_worker(step_s=0.0001)
    await register(client, worker)
    await client.open()
    return client, worker


async def test_a_client_that_does_not_read_is_let_go(strict, ask, eventually):
    client, worker = strict
    body = json.dumps({**ask(new=20_000), "stream": True, "logprobs": True, "top_logprobs": 20}).encode()
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.setblocking(False)
        at = urlsplit(client.served.url)
        await asyncio.get_running_loop().sock_connect(deaf, (at.hostname, at.port))
        head = f"POST /v1/sessions/default/a/turns HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        await asyncio.get_running_loop().sock_sendall(deaf, head.encode() + body)
        await eventually(lambda: worker.aborted, "the worker to be told")

        async def free():
            return (await client.turn(**ask(new=1))).status == 200

        await eventually(free, "the session to be free")


async def test_a_client_of_http_1_0_gets_its_events_without_chunks(fleet, ask):
    await fleet.client.open()
    body = json.dumps({**ask(new=8), "stream": True}).encode()
    at = urlsplit(fleet.client.served.url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    head = f"POST /v1/sessions/default/a/turns HTTP/1.0\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    _, _, told = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    events = told.decode().split("\n\n")
    assert events.pop() == ""
    names = [event.partition("\n")[0].removeprefix("event: ") for event in events]
    assert names == ["turn.started", *["token"] * 8, "turn.committed"]


async def test_a_client_that_goes_while_it_waits_for_the_ledger(fleet, ask, monkeypatch, eventually):
    """The acquire comes through after its client went: the session is free again at once, not at the lease's end."""
    await fleet.client.open()
    ledger = fleet.client.served.gateway.backends.ledger
    acquire, acquired = ledger.acquire, asyncio.Event()

    async def slow(*args, **kwargs):
        got = await acquire(*args, **kwargs)
        acquired.set()
        await asyncio.sleep(0.3)
        return got

    monkeypatch.setattr(ledger, "acquire", slow)
    url = f"{fleet.client.served.url}/v1/sessions/default/a/turns"
    with pytest.raises(TimeoutError):
        await fleet.client.http.post(url, json=ask(), timeout=aiohttp.ClientTimeout(total=0.2))
    assert acquired.is_set()
    monkeypatch.undo()
    began = asyncio.get_running_loop().time()

    async def free():
        return (await fleet.client.turn(**ask(new=1))).status == 200

    await eventually(free, "the session to be free")
    lease_s = fleet.client.served.gateway.settings.turn.lease_s
    assert asyncio.get_running_loop().time() - began < lease_s
    assert len(fleet.first.seen) == 1


async def test_a_client_that_goes_while_it_waits_for_a_worker(fleet, ask, eventually):
    await fleet.client.open()
    for worker in (fleet.first, fleet.second):
        await fleet.client.call("DELETE", f"/admin/workers/{worker.id}")
    url = f"{fleet.client.served.url}/v1/sessions/default/a/turns"
    with pytest.raises(TimeoutError):
        await fleet.client.http.post(url, json=ask(), timeout=aiohttp.ClientTimeout(total=0.2))
    body = {"namespace": "default", "fleet": "default", "url": fleet.first.url}
    await fleet.client.call("PUT", f"/admin/workers/{fleet.first.id}", body)

    async def one_turn():
        return (await fleet.client.turn(**ask(new=1))).status == 200

    await eventually(one_turn, "a turn")
    assert len(fleet.first.seen) == 1


async def test_a_client_that_goes_during_the_commit_changes_nothing(fleet, ask, monkeypatch, eventually):
    await fleet.client.open()
    ledger = fleet.client.served.gateway.backends.ledger
    commit, committing, gone, go_on = ledger.commit, asyncio.Event(), asyncio.Event(), asyncio.Event()
    client_gone = Turn.client_gone

    def noticed(turn):
        client_gone(turn)
        gone.set()

    async def slow(*args, **kwargs):
        committing.set()
        await go_on.wait()
        return await commit(*args, **kwargs)

    monkeypatch.setattr(ledger, "commit", slow)
    monkeypatch.setattr(Turn, "client_gone", noticed)
    turn = asyncio.create_task(fleet.client.turn(**ask()))
    await asyncio.wait_for(committing.wait(), 10)
    turn.cancel()
    await asyncio.wait({turn})
    await asyncio.wait_for(gone.wait(), 10)
    go_on.set()

    async def committed():
        return (await fleet.client.call("GET", "/v1/sessions/default/a"))[1]["turns"] == 1

    await eventually(committed, "the turn to be committed")
    assert (await fleet.client.turn(**ask())).last.data["turn_index"] == 1
