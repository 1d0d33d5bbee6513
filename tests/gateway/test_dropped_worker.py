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
    await fleet.client.open("unfailed")
    return (await fleet.client.turn("unfailed", **ask(new=40, seed=1))).ids


async def running(fleet, ask, eventually) -> asyncio.Task:
    """A turn in the middle of its tokens on the first worker, slow until its `step_s` is 0."""
    await fleet.client.open()
    fleet.first.step_s = 0.02
    turn = asyncio.create_task(fleet.client.turn(**ask(new=40, seed=1)))
    await eventually(lambda: fleet.first.running, "the turn to reach its worker")
    return turn


async def test_a_worker_that_still_answers_finishes_its_turn(fleet, ask, eventually, unfailed, drop):
    turn = await running(fleet, ask, eventually)
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
async def test_a_worker_that_is_lost_after_it_was_dropped_has_its_turn_moved(
    fleet, ask, eventually, unfailed, drop, cut
):
    fleet.first.faults.script = [cut]
    turn = await running(fleet, ask, eventually)
    await drop(fleet.first)
    fleet.first.step_s = 0.0
    told = await turn
    assert told.names[-1] == "turn.committed"
    assert told.one("turn.moved")["to"] == fleet.second.id
    assert told.ids == unfailed
    assert await committed(fleet) == [unfailed]
    after = await session(fleet)
    assert (after["worker"], after["stranded"], after["recoveries"]) == (fleet.second.id, False, 1)


async def test_a_turn_that_its_dropped_worker_wants_again_moves(fleet, ask, drop):
    """It asks for history; the answer would be the next attempt there, and there is none to be had."""
    await fleet.client.open()
    await fleet.client.turn(**ask("one"))
    fleet.first.state.clear()
    posted = fleet.first.admit

    def admit(turn, fault):
        fleet.first.admit = posted
        dropping.append(asyncio.create_task(drop(fleet.first)))
        return None if turn.resume_ids else posted(turn, fault)

    dropping: list[asyncio.Task] = []
    fleet.first.admit = admit
    told = await fleet.client.turn(**ask("two"))
    await asyncio.gather(*dropping)
    assert told.last.name == "turn.committed", told.problem
    assert len(await committed(fleet)) == 2


async def test_with_nobody_else_the_turn_waits_and_goes_back_where_it_was_dropped_in_error(
    fleet, ask, eventually, unfailed, drop, register
):
    await drop(fleet.second)
    fleet.first.faults.script = ["die@5"]
    turn = await running(fleet, ask, eventually)
    await drop(fleet.first)
    fleet.first.step_s = 0.0
    await eventually(lambda: not fleet.first.running, "the worker to lose the turn")
    await register(fleet.client, fleet.second)
    told = await turn
    assert told.ids == unfailed
    assert await committed(fleet) == [unfailed]
    assert told.one("turn.moved")["to"] == fleet.second.id
