"""A worker fails at every moment of a turn: the stream goes on elsewhere, each id and character once, in order."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from berth_api import heads

MOVING = {
    "die@0": "before its start",
    "die@start": "before the first token",
    "die@1": "after the first",
    "die@4": "between tokens",
    "die@last": "after the last token, before the finish",
    "garbage@2": "talks nonsense",
    "wrong_head": "hashes something else",
    "abort internal_error": "its engine failed",
    "421 wrong_worker": "another answers at its address",
    "500 internal_error": "fails at the door",
    "503 draining": "is going away",
    "401 unauthorized": "does not know us",
    "drop": "answers no error object",
    "hang": "silent and unhealthy",
    "freeze@3": "frozen between tokens",
}


def packed(ids: list[int]) -> bytes:
    return np.asarray(ids, dtype="<i4").tobytes()


async def two_turns(client, ask, name: str):
    await client.open(name)
    return [await client.turn(name, **ask("one", seed=1)), await client.turn(name, **ask("two", seed=2))]


@pytest.fixture
async def unfailed(fleet, ask):
    return await two_turns(fleet.client, ask, "unfailed")


@pytest.mark.parametrize("fault", MOVING, ids=MOVING.values())
@pytest.mark.parametrize("after", [0, 1], ids=["first turn", "second turn"])
async def test_the_turn_goes_on_elsewhere(fleet, ask, unfailed, fault, after):
    await fleet.client.open()
    told = [await fleet.client.turn(**ask("one", seed=1))] if after else []
    fleet.first.faults.script = [fault]
    if fault == "hang":
        fleet.first.healthy = False
    told.append(await fleet.client.turn(**ask(("one", "two")[after], seed=after + 1)))
    broken = told[-1]
    assert broken.last.name == "turn.committed", broken.events
    assert broken.ids == unfailed[after].ids
    assert broken.text == unfailed[after].text
    assert broken.last.data["head"] == unfailed[after].last.data["head"]
    started = ("@" in fault and fault != "die@0") or fault in {"wrong_head", "abort internal_error"}
    assert [name for name in broken.names if name != "token"] == (
        ["turn.started", "turn.moved", "turn.committed"] if started else ["turn.started", "turn.committed"]
    )
    view = (await fleet.client.call("GET", "/v1/sessions/default/a"))[1]
    assert view["worker"] == fleet.second.id
    workers = (await fleet.client.call("GET", "/admin/workers"))[1]
    assert {one["id"]: one["suspect"] for one in workers}[fleet.first.id]
    fleet.first.frozen.set()


async def test_moved_tells_from_where_to_where_and_what_was_computed_again(fleet, ask):
    await fleet.client.open()
    fleet.first.faults.script = ["die@4"]
    told = await fleet.client.turn(**ask("hello", new=8))
    moved = told.one("turn.moved")
    assert (moved["from"], moved["to"], moved["attempt"]) == (fleet.first.id, fleet.second.id, 2)
    assert moved["recomputed_tokens"] == 6 + 4
    resumed = fleet.second.seen[-1]
    assert (resumed.resume_ids, resumed.history, resumed.attempt) == (packed(told.ids[:4]), [], 2)
    assert resumed.epoch == fleet.first.seen[-1].epoch


async def test_logprobs_are_sent_once_each(fleet, ask):
    await fleet.client.open()
    fleet.first.faults.script = ["die@3"]
    told = await fleet.client.turn(**ask(new=6), logprobs=True, top_logprobs=2)
    said = [one for event in told.events if event.name == "token" for one in event.data["logprobs"]]
    assert [one[1] for one in said] == told.ids
    status, view, _ = await fleet.client.call(
        "POST", "/v1/sessions/default/a/turns", {**ask(new=6), "logprobs": True, "stream": False}
    )
    assert status == 200
    assert [one[1] for one in view["logprobs"]] == view["output_ids"]


async def test_after_the_finish_it_commits_and_does_not_move(fleet, ask):
    await fleet.client.open()
    fleet.first.faults.script = ["die@finish"]
    told = await fleet.client.turn(**ask())
    assert told.names == ["turn.started", "token", "turn.committed"]
    assert not fleet.second.seen


async def test_a_worker_that_is_only_slow_is_left_alone(fleet, ask):
    await fleet.client.open()
    fleet.first.step_s = 0.5  # longer than the stall limit, but healthy
    told = await fleet.client.turn(**ask(new=2))
    assert told.names == ["turn.started", "token", "turn.committed"]


async def test_at_most_two_moves(start_gateway, start_worker, register, ask):
    client = await start_gateway()
    workers = [await start_worker(slots=16 - n) for n in range(4)]
    await register(client, *workers)
    for worker in workers:
        worker.faults.script = ["die@1"]
    await client.open()
    told = await client.turn(**ask())
    assert told.names == [
        "turn.started", "token", "turn.moved", "token", "turn.moved", "token", "turn.aborted",
    ]  # fmt: skip
    aborted = told.last.data
    assert (aborted["reason"], aborted["retry_safe"], aborted["head"]) == ("worker_failed", False, "")
    assert [len(worker.seen) for worker in workers] == [1, 1, 1, 0]
    view = (await client.call("GET", f"/v1/sessions/default/a/turns/{aborted['turn']}"))[1]
    assert (view["state"], view["reason"]) == ("aborted", "worker_failed")


async def test_on_worker_failure_abort_ends_the_turn(fleet, ask):
    await fleet.client.open()
    fleet.first.faults.script = ["die@2"]
    told = await fleet.client.turn(**ask(), on_worker_failure="abort")
    assert told.names == ["turn.started", "token", "turn.aborted"]
    assert (told.last.data["reason"], told.last.data["retry_safe"]) == ("worker_failed", True)
    again = await fleet.client.turn(**ask())
    assert again.last.name == "turn.committed"
    assert again.one("turn.started")["worker"] == fleet.second.id


@pytest.fixture
async def alone(start_gateway, start_worker, register, fast):
    """A patient gateway with one worker."""
    patient = replace(fast, turn=replace(fast.turn, capacity_wait_s=10.0), worker=replace(fast.worker, suspect_s=0.2))
    client = await start_gateway(patient)
    worker = await start_worker()
    await register(client, worker)
    return client, worker


async def test_the_only_worker_comes_back_to_its_senses(alone, ask):
    client, worker = alone
    await client.open()
    worker.faults.script = ["die@2"]
    told = await client.turn(**ask())
    assert told.names == ["turn.started", "token", "turn.moved", "token", "turn.committed"]


async def test_a_turn_without_a_worker_left_waits_for_one(alone, start_worker, register, ask, eventually):
    client, first = alone
    await client.open()
    first.faults.script = ["die@2"]
    running = asyncio.create_task(client.turn(**ask()))
    await eventually(lambda: first.seen, "the turn to reach the worker")
    await first.runner.cleanup()
    second = await start_worker()
    await register(client, second)
    told = await running
    assert told.last.name == "turn.committed"
    assert told.one("turn.moved")["to"] == second.id


async def test_capacity_that_does_not_come_aborts(start_gateway, start_worker, register, ask):
    client = await start_gateway()
    worker = await start_worker()
    await register(client, worker)
    await client.open()
    worker.faults.script = ["die@2"]
    worker.healthy = False
    told = await client.turn(**ask())
    assert told.names == ["turn.started", "token", "turn.aborted"]
    assert (told.last.data["reason"], told.last.data["retry_safe"]) == ("no_capacity", True)


async def test_history_is_sent_from_the_newest_head_in_common(fleet, ask):
    await fleet.client.open()
    for text in ("one", "two"):
        await fleet.client.turn(**ask(text))
    turns = fleet.first.seen
    slot = fleet.first.state[turns[0].uid]
    del slot.turns[list(slot.turns)[-1]]  # it forgot the second turn
    told = await fleet.client.turn(**ask("three"))
    assert told.last.name == "turn.committed"
    refused, answered = turns[-2:]
    assert refused.history is None
    assert answered.history_base == turns[1].parent
    assert heads.advance(answered.history_base, answered.history[0]) == answered.parent
    assert (answered.epoch, answered.attempt) == (refused.epoch, refused.attempt + 1)
    assert told.names == ["turn.started", "token", "turn.committed"]


async def test_a_new_worker_gets_the_history_unasked(fleet, ask):
    await fleet.client.open()
    await fleet.client.turn(**ask("one"))
    fleet.first.faults.script = ["die@0"]
    await fleet.client.turn(**ask("two"))
    (only,) = fleet.second.seen
    assert (len(only.history), only.history_base) == (1, "")


async def test_stale_lifts_the_epoch_above_what_was_seen(fleet, ask):
    await fleet.client.open()
    await fleet.client.turn(**ask("one"))
    seen = fleet.first.seen[-1]
    ahead = seen.epoch + 10**9
    fleet.first.state[seen.uid].seen = (ahead, 3)
    told = await fleet.client.turn(**ask("two"))
    assert told.last.name == "turn.committed"
    assert fleet.first.seen[-1].epoch > ahead
    assert not fleet.second.seen


async def test_a_duplicate_is_answered_with_the_next_attempt(fleet, ask):
    await fleet.client.open()
    fleet.first.faults.script = ["409 duplicate"]
    told = await fleet.client.turn(**ask())
    assert told.last.name == "turn.committed"
    assert [turn.attempt for turn in fleet.first.seen] == [1, 2]


async def test_a_worker_that_only_refuses_is_left(fleet, ask):
    await fleet.client.open()
    fleet.first.faults.script = ["409 history_required"] * 20
    told = await fleet.client.turn(**ask())
    assert told.last.name == "turn.committed"
    assert len(fleet.first.seen) == 5
    assert len(fleet.second.seen) == 1


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        ("429 queue_full", 429, "queue_full"),
        ("413 too_long", 413, "too_long"),
        ("400 invalid_request", 400, "invalid_request"),
    ],
)
async def test_what_the_worker_finds_at_fault_is_the_clients_problem(fleet, ask, fault, status, kind):
    await fleet.client.open()
    fleet.first.faults.script = [fault]
    told = await fleet.client.turn(**ask())
    assert (told.status, told.problem["type"]) == (status, kind)
    assert not fleet.second.seen
    assert (await fleet.client.call("GET", "/v1/sessions/default/a"))[1]["turns"] == 0
    assert (await fleet.client.turn(**ask())).last.name == "turn.committed"


async def test_a_superseded_turn_is_aborted(fleet, ask):
    await fleet.client.open()
    fleet.first.faults.script = ["abort superseded"]
    told = await fleet.client.turn(**ask())
    assert (told.names, told.last.data["reason"]) == (["turn.started", "turn.aborted"], "superseded")


async def test_a_worker_that_is_left_does_not_go_on_while_another_is_looked_for(alone, ask, eventually):
    client, worker = alone
    await client.open()
    worker.faults.script = ["freeze@3"]
    running = asyncio.create_task(client.turn(**ask()))
    await eventually(lambda: worker.aborted, "the frozen worker to be let go")
    assert not running.done()
    worker.healthy = True
    assert (await running).last.name == "turn.committed"


async def test_a_refusal_without_its_facts_is_a_fault_of_the_worker(fleet, ask):
    await fleet.client.open()
    fleet.first.faults.script = ["409 stale"]
    told = await fleet.client.turn(**ask())
    assert told.last.name == "turn.committed"
    assert (len(fleet.first.seen), len(fleet.second.seen)) == (1, 1)


async def test_a_worker_cannot_invent_names_for_our_metrics(fleet, ask):
    await fleet.client.open()
    fleet.first.faults.script = ["500 made-up-7f3a"]
    assert (await fleet.client.turn(**ask())).last.name == "turn.committed"
    exposed = (await fleet.client.call("GET", "/metrics"))[1].decode()
    assert "made-up" not in exposed
    assert 'berth_gateway_moves_total{reason="refuses"} 1.0' in exposed


async def test_turns_one_after_another_take_one_connection(fleet, ask):
    await fleet.client.open()
    connections = set()
    fleet.first.gate = lambda _turn, _count: connections.update(fleet.first.runner.server.connections)
    for _ in range(10):
        assert (await fleet.client.turn(**ask(new=2))).last.name == "turn.committed"
    assert len(connections) <= 2
