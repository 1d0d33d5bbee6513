"""The client of the public API, against a gateway of a few lines."""

from __future__ import annotations

import socket

import pytest
from aiohttp import web

from berth_api import public
from berth_api.public import Message, TurnCreate
from berth_api.wire import FinishReason
from berth_cli import client as module
from berth_cli.client import GatewayClient
from berth_cli.errors import GatewayError, GatewayUnreachable, Refused

TURNS = "/v1/sessions/default/s/turns"
TURN = TurnCreate(messages=[Message("user", "hi")])
STARTED = public.TurnStarted("turn", 1, "w.1", 3, 0)
ONE, TWO = public.TurnToken([1], "a"), public.TurnToken([2], "b")
DONE = public.TurnCommitted("turn", "h", 0, public.Usage(3, 2, 0), FinishReason("stop"))


def problem(type_: str, status: int, detail: str, **headers: str) -> web.Response:
    body = {"type": type_, "status": status, "detail": detail}
    return web.json_response(body, status=status, content_type="application/problem+json", headers=headers)


async def listen(client: GatewayClient) -> list[object]:
    return [event async for event in client.turn("default", "s", TURN)]


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch) -> None:
    monkeypatch.setattr(module, "_PAUSE_S", 0.0)


async def test_a_turns_events_come_in_order_up_to_the_terminal_one(serve, stream) -> None:
    async def turns(request):
        assert (await request.json())["stream"] is True
        return await stream(request, [STARTED, ONE, TWO, DONE])

    async with GatewayClient([await serve([web.post(TURNS, turns)])]) as client:
        assert await listen(client) == [STARTED, ONE, TWO, DONE]


async def test_a_broken_stream_goes_on_where_it_broke(serve, stream) -> None:
    """The same key, the last event's id, and a 409 until the dead gateway's lease is over."""
    asked = []

    async def turns(request):
        asked.append((request.headers["Idempotency-Key"], request.headers.get("Last-Event-ID")))
        if len(asked) == 1:
            return await stream(request, [STARTED, ONE], cut=True)
        if len(asked) == 2:
            return problem("turn_in_flight", 409, "a turn is running")
        return await stream(request, [TWO, DONE], first=2)

    async with GatewayClient([await serve([web.post(TURNS, turns)])]) as client:
        assert await listen(client) == [STARTED, ONE, TWO, DONE]
    assert len({key for key, _ in asked}) == 1
    assert [last for _, last in asked] == [None, "turn:1:0", "turn:1:0"]


async def test_the_next_gateway_takes_over(serve, stream) -> None:
    async def dies(request):
        return await stream(request, [STARTED, ONE], cut=True)

    async def lives(request):
        return await stream(request, [TWO, DONE], first=2)

    urls = [await serve([web.post(TURNS, dies)]), await serve([web.post(TURNS, lives)])]
    async with GatewayClient(urls) as client:
        assert await listen(client) == [STARTED, ONE, TWO, DONE]


@pytest.mark.parametrize("name", ["s#x", "s?x", "x/../s", "../default/s", "s%2Fturns", ""])
async def test_a_name_that_is_none_reaches_no_other_session(serve, name) -> None:
    async def close(_):
        return web.Response(status=204)

    async with GatewayClient([await serve([web.delete("/v1/sessions/default/s", close)])]) as client:
        with pytest.raises(GatewayError):
            await client.delete("default", name)


async def test_a_refused_turn_is_not_sent_again(serve) -> None:
    asked = []

    async def turns(request):
        asked.append(request)
        return problem("turn_in_flight", 409, "a turn is running", **{"Retry-After": "1.5"})

    async with GatewayClient([await serve([web.post(TURNS, turns)])]) as client:
        with pytest.raises(Refused, match="a turn is running") as caught:
            await listen(client)
    assert (caught.value.type, caught.value.status, caught.value.retry_after_s) == ("turn_in_flight", 409, 1.5)
    assert len(asked) == 1


async def test_a_stream_that_stays_broken_is_given_up(serve, stream, monkeypatch) -> None:
    monkeypatch.setattr(module, "_RESUME_S", 0.0)

    async def turns(request):
        return await stream(request, [STARTED], cut=True)

    async with GatewayClient([await serve([web.post(TURNS, turns)])]) as client:
        with pytest.raises(GatewayUnreachable):
            await listen(client)


async def test_a_turn_lost_before_its_first_event_is_asked_after(serve, stream) -> None:
    """The gateway may have begun it: 409 for the same key means wait, not fail."""
    asked = []

    async def turns(request):
        asked.append(request.headers["Idempotency-Key"])
        if len(asked) == 1:
            request.transport.abort()
        if len(asked) == 2:
            return problem("turn_in_flight", 409, "a turn is running")
        return await stream(request, [STARTED, ONE, DONE])

    async with GatewayClient([await serve([web.post(TURNS, turns)])]) as client:
        assert await listen(client) == [STARTED, ONE, DONE]
    assert len(set(asked)) == 1


async def test_a_turn_that_nobody_takes_fails_at_once() -> None:
    async with GatewayClient(["http://127.0.0.1:1", "http://127.0.0.1:2"]) as client:
        with pytest.raises(GatewayUnreachable, match=r"http://127\.0\.0\.1:2"):
            await listen(client)


async def test_an_unknown_event_is_named(serve) -> None:
    async def turns(_):
        return web.Response(text="event: turn.exploded\ndata: {}\n\n", content_type="text/event-stream")

    async with GatewayClient([await serve([web.post(TURNS, turns)])]) as client:
        with pytest.raises(GatewayError, match=r"turn\.exploded"):
            await listen(client)


async def test_nobody_there_is_one_line() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        async with GatewayClient([url]) as client:
            with pytest.raises(GatewayUnreachable, match=f"no gateway answers at {url}: ") as caught:
                await client.session("default", "s")
    assert "\n" not in str(caught.value)


async def test_calls_pass_over_a_dead_gateway(serve) -> None:
    history = {"head": "h", "turns": []}

    async def answer(_):
        return web.json_response(history)

    live = await serve([web.get("/v1/sessions/default/s/history", answer)])
    async with GatewayClient(["http://127.0.0.1:1", live]) as client:
        assert await client.history("default", "s") == public.HistoryView("h", [])


async def test_all_pages_of_sessions_are_read(serve) -> None:
    def view(name: str) -> dict[str, object]:
        texts = dict.fromkeys(("uid", "fleet", "head", "endpoint"), "x")
        numbers = {"turns": 0, "tokens": 0, "last_active": 0.0, "worker": None}
        return {"namespace": "default", "name": name, "origin": "http", "state": "resident", **texts, **numbers}

    async def page(request):
        after = request.query["after"]
        last = {"": "a", "default/a": "b"}[after]
        return web.json_response({"sessions": [view(last)], "next": None if last == "b" else f"default/{last}"})

    async with GatewayClient([await serve([web.get("/v1/sessions", page)])]) as client:
        assert [session.name for session in await client.sessions()] == ["a", "b"]


async def test_an_answer_without_a_problem_names_its_status(serve) -> None:
    async def turns(_):
        return web.Response(status=502, text="<html>")

    async with GatewayClient([await serve([web.post(TURNS, turns)])]) as client:
        with pytest.raises(Refused, match="answered 502"):
            await listen(client)
