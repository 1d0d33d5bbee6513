"""Turns are ended from outside: by order through any gateway, by the client's going, by a deferred close."""

from __future__ import annotations

import asyncio

import pytest


@pytest.fixture
async def other(fleet, start_gateway):
    assert fleet.client  # first
    return await start_gateway()


@pytest.fixture
async def slow(fleet, eventually, ask):
    """A turn of 100 tokens that takes two seconds; returns (task, turn id) once it talks."""
    fleet.first.step_s = fleet.second.step_s = 0.02
    await fleet.client.open()
    tasks = []

    async def start(**body):
        from_worker = len(fleet.first.seen)
        task = asyncio.create_task(fleet.client.turn(**ask(new=100), **body))
        tasks.append(task)
        await eventually(lambda: len(fleet.first.seen) > from_worker, "the turn to reach the worker")
        await asyncio.sleep(0.1)
        return task, fleet.first.seen[-1].turn

    yield start
    for task in tasks:
        task.cancel()


async def test_stop_from_another_gateway_commits_what_was_said(other, slow):
    task, turn = await slow()
    status, view, _ = await other.call("POST", f"/v1/sessions/default/a/turns/{turn}/stop")
    assert (status, view["state"]) == (202, "running")
    told = await task
    assert told.last.name == "turn.committed"
    assert told.last.data["finish_reason"] == {"type": "stop"}
    assert 0 < len(told.ids) < 100
    view = (await other.call("GET", f"/v1/sessions/default/a/turns/{turn}"))[1]
    assert (view["state"], view["output_ids"], view["text"]) == ("committed", told.ids, told.text)


async def test_abort_from_another_gateway_discards_it(other, slow):
    task, turn = await slow()
    assert (await other.call("POST", f"/v1/sessions/default/a/turns/{turn}/abort"))[0] == 202
    told = await task
    assert (told.last.name, told.last.data["reason"], told.last.data["head"]) == ("turn.aborted", "ordered", "")
    assert (await other.call("GET", "/v1/sessions/default/a"))[1]["turns"] == 0
    view = (await other.call("GET", f"/v1/sessions/default/a/turns/{turn}"))[1]
    assert (view["state"], view["reason"]) == ("aborted", "ordered")


async def test_the_client_goes_and_the_turn_ends_at_the_worker_too(fleet, slow, eventually, ask):
    task, turn = await slow()
    task.cancel()
    await eventually(lambda: turn in fleet.first.aborted, "the worker to be told")

    async def next_turn():
        return (await fleet.client.turn(**ask(new=2))).status == 200

    await eventually(next_turn, "the session to be free")
    view = (await fleet.client.call("GET", f"/v1/sessions/default/a/turns/{turn}"))[1]
    assert (view["state"], view["reason"]) == ("aborted", "client_gone")


async def test_a_client_that_waits_for_one_answer_goes_too(fleet, ask, eventually):
    fleet.first.step_s = 0.02
    await fleet.client.open()
    url = f"{fleet.client.served.url}/v1/sessions/default/a/turns"
    waiting = asyncio.ensure_future(fleet.client.http.post(url, json=ask(new=1000)))
    await eventually(lambda: fleet.first.running, "the turn to run")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await eventually(lambda: fleet.first.aborted, "the worker to be told")


async def test_a_background_turn_is_fetched_later(fleet, other, ask, eventually):
    fleet.first.step_s = 0.01
    await fleet.client.open()
    status, begun, _ = await fleet.client.call(
        "POST", "/v1/sessions/default/a/turns", {**ask(new=20), "background": True}
    )
    assert (status, begun["state"]) == (202, "running")

    async def done():
        found = (await other.call("GET", f"/v1/sessions/default/a/turns/{begun['turn']}"))[1]
        return found if found["state"] == "committed" else None

    view = await eventually(done, "the turn to be committed")
    assert len(view["output_ids"]) == len(view["text"]) == 20
    assert view["finish_reason"] == {"type": "length"}


async def test_a_streamed_background_turn_outlives_its_client(fleet, slow, eventually):
    task, turn = await slow(background=True)
    task.cancel()

    async def done():
        view = (await fleet.client.call("GET", f"/v1/sessions/default/a/turns/{turn}"))[1]
        return view["state"] == "committed"

    await eventually(done, "the turn to be committed")
    assert fleet.first.aborted == []


async def test_a_stop_reaches_a_turn_that_moved(fleet, other, slow, eventually):
    task, turn = await slow()
    await fleet.first.runner.cleanup()
    await eventually(lambda: fleet.second.running, "the turn to move")
    await other.call("POST", f"/v1/sessions/default/a/turns/{turn}/stop")
    told = await task
    assert "turn.moved" in told.names
    assert told.last.data["finish_reason"] == {"type": "stop"}


async def test_an_order_for_a_turn_nobody_knows(fleet):
    await fleet.client.open()
    status, problem, _ = await fleet.client.call("POST", "/v1/sessions/default/a/turns/nobody/stop")
    assert (status, problem["type"]) == (404, "no_such_turn")


async def test_a_close_while_a_turn_runs_waits_for_its_end(fleet, slow, eventually, ask):
    task, turn = await slow()
    assert (await fleet.client.call("DELETE", "/v1/sessions/default/a"))[0] == 202
    refused = await fleet.client.turn(**ask())
    assert refused.status == 409
    assert refused.problem["type"] in {"turn_in_flight", "session_closing"}
    await fleet.client.call("POST", f"/v1/sessions/default/a/turns/{turn}/stop")
    assert (await task).last.name == "turn.committed"
    assert (await fleet.client.call("GET", "/v1/sessions/default/a"))[0] == 404
    await eventually(lambda: fleet.first.released, "the KV to be given up")


async def test_fifty_turns_at_once_on_one_session_and_one_runs(fleet, other, ask):
    fleet.first.step_s = 0.02
    await fleet.client.open()
    clients = [fleet.client, other]
    told = await asyncio.gather(*(clients[n % 2].turn(**ask(f"turn {n}", new=25)) for n in range(50)))
    winners = [one for one in told if one.status == 200]
    assert len(winners) == 1
    assert winners[0].last.name == "turn.committed"
    losers = [one for one in told if one.status != 200]
    assert {(one.status, one.problem["type"]) for one in losers} == {(409, "turn_in_flight")}
    assert all(int(one.headers["Retry-After"]) >= 1 for one in losers)
    assert len(fleet.first.seen) == 1
    assert (await fleet.client.call("GET", "/v1/sessions/default/a"))[1]["turns"] == 1
