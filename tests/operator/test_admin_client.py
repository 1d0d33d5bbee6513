"""The admin API's client: several gateways, one of them good."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from berth_api.admin import Change, Recovery, SessionPut, WorkerFound, WorkerPut
from berth_operator.admin_client import AdminClient
from berth_operator.errors import AdminRefused, AdminUnavailable, CursorGone

DEAD = "http://127.0.0.1:1"
VIEW = {
    "id": "w/1.boot",
    "namespace": "default",
    "fleet": "default",
    "url": "http://w",
    "slots": 4,
    "fingerprint": "f",
    "cordoned": False,
    "suspect": False,
    "running": ["a"],
    "idle": [],
}

Make = Callable[..., Awaitable[AdminClient]]


class Gateway:
    """Answers everything with one response, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answer: Callable[[], web.Response] = lambda: web.json_response([VIEW])
        self.asked: list[tuple[str, str, str | None, bytes]] = []

    async def handle(self, request: web.Request) -> web.Response:
        asked = (request.method, request.raw_path, request.headers.get("Authorization"), await request.read())
        self.asked.append(asked)
        return self.answer()


@pytest_asyncio.fixture
async def gateways() -> AsyncIterator[list[tuple[Gateway, str]]]:
    """Two gateways and their URLs."""
    made, servers = [], []
    for _ in range(2):
        gateway, app = Gateway(), web.Application()
        app.router.add_route("*", "/{path:.*}", gateway.handle)
        server = TestServer(app, host="127.0.0.1")
        await server.start_server()
        servers.append(server)
        made.append((gateway, f"http://127.0.0.1:{server.port}"))
    yield made
    for server in servers:
        await server.close()


@pytest_asyncio.fixture
async def client() -> AsyncIterator[Callable[..., AdminClient]]:
    async with aiohttp.ClientSession() as http:
        yield lambda *urls: AdminClient(lambda: urls, "secret", http, timeout_s=5.0)


async def test_sends_the_token_and_reads_workers(gateways, client) -> None:
    gateway, url = gateways[0]
    (worker,) = await client(url).workers()
    assert (worker.id, worker.running, worker.waiting) == ("w/1.boot", ["a"], 0)
    assert gateway.asked == [("GET", "/admin/workers", "Bearer secret", b"")]


async def test_a_workers_id_is_quoted(gateways, client) -> None:
    gateway, url = gateways[0]
    await client(url).put_worker("w/1.boot", WorkerPut("default", "default", "http://w", cordoned=True))
    method, path, _, body = gateway.asked[0]
    assert (method, path) == ("PUT", "/admin/workers/w%2F1.boot")
    assert body == b'{"namespace":"default","fleet":"default","url":"http://w","cordoned":true}'


async def test_a_dead_gateway_is_passed_over(gateways, client) -> None:
    assert len(await client(DEAD, gateways[0][1]).workers()) == 1


async def test_one_that_cannot_now_is_passed_over(gateways, client) -> None:
    (sick, sick_url), (_, url) = gateways
    sick.answer = lambda: web.json_response({"type": "ledger_unavailable", "detail": "no Redis"}, status=503)
    assert len(await client(sick_url, url).workers()) == 1


async def test_who_answered_last_is_asked_first(gateways, client) -> None:
    (sick, sick_url), (_, url) = gateways
    sick.answer = lambda: web.Response(status=500)
    both = client(sick_url, url)
    await both.workers()
    await both.workers()
    assert len(sick.asked) == 1


async def test_nobody_left_says_why(gateways, client) -> None:
    gateway, url = gateways[0]
    gateway.answer = lambda: web.json_response({"type": "ledger_unavailable", "detail": "no Redis"}, status=503)
    with pytest.raises(AdminUnavailable, match=f"{DEAD}.*no Redis"):
        await client(DEAD, url).workers()


async def test_no_gateway_known_is_said(client) -> None:
    with pytest.raises(AdminUnavailable, match="none is known"):
        await client().workers()


async def test_a_refusal_is_final(gateways, client) -> None:
    (first, first_url), (second, second_url) = gateways
    first.answer = lambda: web.json_response({"type": "conflict", "detail": "another model"}, status=409)
    with pytest.raises(AdminRefused, match="another model") as caught:
        await client(first_url, second_url).put_worker("w", WorkerPut("default", "default", "http://w"))
    assert (caught.value.type, caught.value.status) == ("conflict", 409)
    assert second.asked == []


async def test_dropping_the_unknown_is_fine(gateways, client) -> None:
    gateway, url = gateways[0]
    gateway.answer = lambda: web.json_response({"type": "no_such_worker"}, status=404)
    await client(url).drop_worker("w")
    gateway.answer = lambda: web.json_response({"type": "conflict", "detail": "not that one"}, status=409)
    with pytest.raises(AdminRefused, match="not that one"):
        await client(url).drop_worker("w")


@pytest.mark.parametrize("status", [401, 403])
async def test_a_gateway_that_does_not_know_us_is_none(gateways, client, status) -> None:
    gateway, url = gateways[0]
    gateway.answer = lambda: web.json_response({"type": "unauthorized", "detail": "who?"}, status=status)
    with pytest.raises(AdminUnavailable, match=r"who\?"):
        await client(url).workers()


async def test_an_answer_that_makes_no_sense_is_no_view(gateways, client) -> None:
    gateway, url = gateways[0]
    gateway.answer = lambda: web.json_response({"workers": 3})
    with pytest.raises(AdminUnavailable, match="makes no sense"):
        await client(url).workers()


# Sessions ---------------------------------------------------------------------------------------------------------

SESSION = {
    "namespace": "default",
    "name": "alice",
    "uid": "u1",
    "origin": "cr",
    "fleet": "default",
    "state": "resident",
    "head": "",
    "turns": 0,
    "tokens": 0,
    "worker": "w.2",
    "last_active": 1.0,
    "endpoint": "/v1/sessions/default/alice",
    "recoveries": 1,
    "last_recovery": {"from": "w.1", "to": "w.2", "reason": "drained", "at": 2.0},
    "deletion_policy": "Retain",
}


async def test_a_session_tells_its_recovery(gateways, client) -> None:
    gateway, url = gateways[0]
    gateway.answer = lambda: web.json_response(SESSION)
    session = await client(url).session("default", "alice")
    assert session.last_recovery == Recovery("w.1", "w.2", "drained", 2.0)
    assert (session.recoveries, session.deletion_policy, session.stranded) == (1, "Retain", False)
    assert gateway.asked[0][:2] == ("GET", "/admin/sessions/default/alice")


async def test_sessions_are_read_to_the_last_page(gateways, client) -> None:
    gateway, url = gateways[0]
    pages = iter(
        [
            {"sessions": [SESSION], "next": "alice"},
            {"sessions": [], "next": "bob"},
            {"sessions": [SESSION | {"name": "c"}]},
        ]
    )
    gateway.answer = lambda: web.json_response(next(pages))
    found = await client(url).sessions("default", origin="cr")
    assert [session.name for session in found] == ["alice", "c"]
    asked = "/admin/sessions?namespace=default&limit=1000&origin=cr"
    assert [path for _, path, _, _ in gateway.asked] == [asked, f"{asked}&after=alice", f"{asked}&after=bob"]


async def test_a_session_is_put_as_its_resource_wants_it(gateways, client) -> None:
    gateway, url = gateways[0]
    gateway.answer = lambda: web.json_response(SESSION, status=201)
    session = await client(url).put_session("default", "alice", SessionPut("u1", "default", bind=True))
    assert session.uid == "u1"
    method, path, _, body = gateway.asked[0]
    assert (method, path) == ("PUT", "/admin/sessions/default/alice")
    assert json.loads(body)["bind"] is True


async def test_why_a_session_is_refused_can_be_told(gateways, client) -> None:
    gateway, url = gateways[0]
    problem = {"type": "session_closing", "status": 409, "detail": "gone", "reason": "idle_timeout", "closed": True}
    gateway.answer = lambda: web.json_response(problem, status=409)
    with pytest.raises(AdminRefused, match="gone") as caught:
        await client(url).put_session("default", "alice", SessionPut("u1", "default"))
    assert caught.value.type == "session_closing"
    assert caught.value.members == {"status": 409, "reason": "idle_timeout", "closed": True}


@pytest.mark.parametrize(("status", "deferred"), [(204, False), (202, True), (404, False)])
async def test_closing_tells_whether_a_turn_ends_first(gateways, client, status, deferred) -> None:
    gateway, url = gateways[0]
    gateway.answer = lambda: web.Response(status=status)
    assert await client(url).close_session("default", "alice", "u1") is deferred
    assert gateway.asked[0][:2] == ("DELETE", "/admin/sessions/default/alice?uid=u1")


async def test_a_worker_is_registered_by_its_pod(gateways, client) -> None:
    gateway, url = gateways[0]
    gateway.answer = lambda: web.json_response(VIEW)
    worker = await client(url).register_worker(WorkerFound("w/1", "default", "default", "http://w"))
    assert worker.id == "w/1.boot"
    assert gateway.asked[0][:2] == ("POST", "/admin/workers")


async def test_namespaces(gateways, client) -> None:
    gateway, url = gateways[0]
    gateway.answer = lambda: web.json_response({"namespaces": ["a", "b"]})
    assert await client(url).namespaces() == ["a", "b"]


async def test_changes_follow_a_cursor_until_it_is_gone(gateways, client) -> None:
    gateway, url = gateways[0]
    change = {"kind": "session", "name": "alice", "what": "worker_lost"}
    gateway.answer = lambda: web.json_response({"cursor": "l:2", "changes": [change]})
    changes = await client(url).changes("default", "l:1")
    assert (changes.cursor, changes.changes) == ("l:2", [Change("session", "alice", "worker_lost")])
    assert gateway.asked[0][1] == "/admin/changes?namespace=default&limit=1000&after=l:1"
    gateway.answer = lambda: web.json_response({"type": "cursor_gone", "detail": "list again"}, status=410)
    with pytest.raises(CursorGone, match="list again"):
        await client(url).changes("default", "l:1")
    gateway.answer = lambda: web.json_response({"type": "invalid_request", "detail": "limit"}, status=400)
    with pytest.raises(AdminRefused) as caught:
        await client(url).changes("default")
    assert not isinstance(caught.value, CursorGone)
