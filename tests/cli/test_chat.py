"""`berth chat` with lines from a pipe, against a gateway of a few lines."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest
import pytest_asyncio
from aiohttp import web

from berth_api import public
from berth_api.wire import FinishReason

SESSION = "/v1/sessions/default/s"
STARTED = public.TurnStarted("turn", 1, "default-0-aa.boot", 3, 0)
DONE = public.TurnCommitted("turn", "h", 0, public.Usage(3, 2, 0), FinishReason("stop"))
VIEW = {
    "namespace": "default",
    "name": "s",
    "uid": "u",
    "origin": "http",
    "fleet": "default",
    "state": "resident",
    "head": "",
    "turns": 0,
    "tokens": 0,
    "worker": None,
    "last_active": 0.0,
    "endpoint": SESSION,
}
Chat = Callable[..., Awaitable[asyncio.subprocess.Process]]


@pytest_asyncio.fixture
async def chat() -> AsyncIterator[Chat]:
    """Start `berth chat` at a gateway; it is gone after the test."""
    started = []

    async def run(url: str, *options: str) -> asyncio.subprocess.Process:
        command = [sys.executable, "-m", "berth_cli", "chat", "--gateway", url, *options]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
        started.append(process)
        return process

    yield run
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
def said() -> list[dict]:
    """The bodies of the turns that the gateway was sent."""
    return []


@pytest.fixture
def routes(stream, said) -> list[web.RouteDef]:
    """A gateway that knows one session and repeats what it is told."""

    async def view(_):
        return web.json_response(VIEW)

    async def turns(request):
        said.append(await request.json())
        text = said[-1]["messages"][0]["content"]
        return await stream(request, [STARTED, public.TurnToken([1], f"you said {text}"), DONE])

    async def history(_):
        turn = public.HistoryTurn(0, "h", [1], [2], "hi", "you said hi")
        return web.Response(body=msgspec.json.encode(public.HistoryView("h", [turn])))

    return [
        web.post("/v1/sessions", view),
        web.get(SESSION, view),
        web.post(f"{SESSION}/turns", turns),
        web.get(f"{SESSION}/history", history),
    ]


async def test_reads_as_plain_text(serve, chat, routes, said) -> None:
    process = await chat(await serve(routes))
    out, err = await process.communicate(b"hi\n\n/history\n/what\nthere\n/quit\nnever\n")
    assert (process.returncode, err) == (0, b"")
    lines = out.decode().splitlines()
    assert lines[0].startswith("session default/s; ")
    assert lines[1:6] == ["> hi", "you said hi", "> /history", "> hi", "you said hi"]
    assert lines[6] == "> /what"
    assert lines[8:] == ["> there", "you said there", "> /quit"]
    assert b"\x1b" not in out
    assert [turn["messages"][0]["content"] for turn in said] == ["hi", "there"]


async def test_bytes_that_are_no_text_do_not_end_the_conversation(serve, chat, routes, said) -> None:
    process = await chat(await serve(routes))
    _, err = await process.communicate(b"h\xff\xfei\nthere\n")
    assert (process.returncode, err) == (0, b"")
    assert [turn["messages"][0]["content"] for turn in said] == ["h\ufffd\ufffdi", "there"]


async def test_goes_on_with_a_session(serve, chat, routes) -> None:
    made = []

    async def no_session(_):
        return web.json_response({"type": "no_such_session", "detail": "no session"}, status=404)

    async def create(request):
        made.append(await request.json())
        return web.json_response(VIEW, status=201)

    process = await chat(await serve(routes), "--session", "s")
    await process.communicate(b"")
    assert process.returncode == 0
    absent = [web.get(SESSION, no_session), web.post("/v1/sessions", create)]
    process = await chat(await serve(absent), "--session", "s")
    await process.communicate(b"")
    assert [body["name"] for body in made] == ["s"]


async def test_a_failed_turn_is_said_and_the_conversation_goes_on(serve, chat, routes, stream) -> None:
    refusals = iter([web.json_response({"type": "too_long", "detail": "the session is full"}, status=413)])

    async def turns(request):
        answer = next(refusals, None)
        return answer or await stream(request, [STARTED, public.TurnToken([1], "fine"), DONE])

    routes = [route for route in routes if not route.path.endswith("/turns")]
    process = await chat(await serve([*routes, web.post(f"{SESSION}/turns", turns)]))
    out, err = await process.communicate(b"one\ntwo\n")
    assert process.returncode == 1
    assert err == b"berth: the session is full\n"
    assert b"fine" in out


async def test_ctrl_c_ends_the_answer_and_keeps_it(serve, chat, routes, stream) -> None:
    stopped, orders = asyncio.Event(), []

    async def turns(request):
        response = await stream(request, [STARTED, public.TurnToken([1], "half")])
        await stopped.wait()
        await response.write(b"event: turn.committed\nid: turn:9:0\ndata: " + msgspec.json.encode(DONE) + b"\n\n")
        return response

    async def stop(request):
        orders.append(request.match_info["turn"])
        stopped.set()
        return web.json_response({"turn": "turn", "state": "running"}, status=202)

    routes = [route for route in routes if not route.path.endswith("/turns")]
    routes += [web.post(f"{SESSION}/turns", turns), web.post(f"{SESSION}/turns/{{turn}}/stop", stop)]
    process = await chat(await serve(routes))
    process.stdin.write(b"tell me\n")
    async with asyncio.timeout(20):
        await process.stdout.readuntil(b"half")
        process.send_signal(signal.SIGINT)
        rest, err = await process.communicate(b"/history\n")
    assert (process.returncode, err, orders) == (0, b"", ["turn"])
    assert rest.decode().splitlines() == ["", "> /history", "> hi", "you said hi"]
