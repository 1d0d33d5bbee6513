"""A worker is dropped from the ledger while its turns run, because its node is cut off or only seems so.

Whoever still reaches it may finish and commit there; who does not, moves. Never both.
"""

from __future__ import annotations

import asyncio

import pytest


@pytest.fixture
def drop(fleet):
    async def run(worker) -> None:
        status, answer, _ = await fleet.client.call("DELETE", f"/admin/workers/{worker.id}")
        assert status == 204, answer

    return run


async def session(fleet):
    return (await fleet.client.call("GET", "/admin/sessions/default/a"))[1]


async def committed(fleet) -> list[list[int]]:
    turns = (await fleet.client.call("GET", "/v1/sessions/default/a/history"))[1]["turns"]
    return [turn["output_ids"] for turn in turns]


@pytest.fixture
async def unfailed(fleet, ask):
    """What the turn says where nothing is dropped."""
    await fleet.client.open("unfailed")
    return (await fleet.client.turn("unfailed", **ask(new=40, seed=1))).ids


@pytest.fixture
def running(fleet, ask, eventually):
    """Bring a turn into the middle of its tokens on the first worker; it is slow until that worker's `step_s` is 0."""

    async def begin() -> asyncio.Task:
        await fleet.client.open()
        fleet.first.step_s = 0.02
        turn = asyncio.create_task(fleet.client.turn(**ask(new=40, seed=1)))
        await eventually(lambda: fleet.first.running, "the turn to reach its worker")
        return turn

    return begin


async def test_a_worker_that_still_answers_finishes_its_turn(fleet, ask, running, unfailed, drop):
    turn = await running()
    await drop(fleet.first)
    assert (await session(fleet))["stranded"]
    fleet.first.step_s = 0.0
    told = await turn
    assert told.names == ["turn.started", "token", "turn.committed"]
    assert told.ids == unfailed
    assert not fleet.second.seen
    after = await session(fleet)
    assert (after["state"], after["stranded"], after["recoveries"]) == ("hibernated", True, 0)

    told = await fleet.client.turn(**ask())
    assert told.one("turn.started")["worker"] == fleet.second.id
    assert len(await committed(fleet)) == 2
    after = await session(fleet)
    assert (after["state"], after["stranded"], after["recoveries"]) == ("resident", False, 1)
    recovery = after["last_recovery"]
    assert (recovery["from"], recovery["to"], recovery["reason"]) == (fleet.first.id, fleet.second.id, "worker_lost")


@pytest.mark.parametrize("cut", ["die@5", "die@last", "wrong_head"])
async def test_a_worker_that_is_lost_after_it_was_dropped_has_its_turn_moved(fleet, running, unfailed, drop, cut):
    fleet.first.faults.script = [cut]
    turn = await running()
    await drop(fleet.first)
    fleet.first.step_s = 0.0
    told = await turn
    assert told.last.name == "turn.committed"
    assert told.one("turn.moved")["to"] == fleet.second.id
    assert told.ids == unfailed
    assert await committed(fleet) == [unfailed]
    after = await session(fleet)
    assert (after["worker"], after["stranded"], after["recoveries"]) == (fleet.second.id, False, 1)


async def test_with_nobody_else_the_turn_waits_for_the_next_worker(fleet, running, drop, register, start_worker):
    await drop(fleet.second)
    fleet.first.faults.script = ["die@5"]
    turn = await running()
    await drop(fleet.first)
    third = await start_worker()
    await register(fleet.client, third)
    told = await turn
    assert told.one("turn.moved")["to"] == third.id
    assert await committed(fleet) == [told.ids]


async def test_a_turn_that_its_dropped_worker_wants_again_moves(fleet, ask, drop, monkeypatch):
    """It asks for history, and is dropped before the ledger can give out the next attempt there."""
    await fleet.client.open()
    await fleet.client.turn(**ask("one"))
    fleet.first.state.clear()
    ledger = fleet.client.served.gateway.backends.ledger
    move = ledger.move

    async def late(fence, *, stay=False, **more):
        if stay:
            await drop(fleet.first)
        return await move(fence, stay=stay, **more)

    monkeypatch.setattr(ledger, "move", late)
    told = await fleet.client.turn(**ask("two"))
    assert told.last.name == "turn.committed", told.problem
    assert told.one("turn.started")["worker"] == fleet.second.id
    assert len(await committed(fleet)) == 2
