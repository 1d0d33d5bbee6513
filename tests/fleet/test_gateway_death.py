"""A gateway dies at every moment of a turn that matters: the same Idempotency-Key at another one settles it."""

from __future__ import annotations

import asyncio
import signal

import pytest

from berth_api import heads
from fleetkit.client import Client, Streamed
from fleetkit.procs import kill, until
from fleetkit.story import at_token, eventually, insist, same, tell, turn, turns

pytestmark = pytest.mark.asyncio(loop_scope="session")

FINISHED = b'"event":"finished"'


@pytest.fixture
def other(rig, client) -> Client:
    """The second gateway, which outlives the first."""
    return client.at(rig.gateways[1].url)


async def has_turns(client: Client, name: str, count: int) -> bool:
    return bool((await client.session(name))["turns"] == count)


async def settled(other: Client, name: str, turns_before: int, expected: Streamed, reply) -> None:
    """The turn is committed exactly once, as the unfailed run has it, and both gateways' answers agree."""
    assert reply.status == 200, reply
    assert reply.body["state"] == "committed"
    assert reply.body["output_ids"] == expected.ids
    assert reply.body["head"] == expected.end["head"]
    view = await other.session(name)
    assert (view["turns"], view["head"]) == (turns_before + 1, expected.end["head"])
    assert (await other.turn_view(name, reply.body["turn"])).body["state"] == "committed"


async def test_killed_before_the_worker_heard_of_the_turn(rig, client, other):
    plan = turns(21)
    expected = await tell(other, plan)
    session = await client.open()
    name = session["name"]
    await client.turn(name, plan[0])

    async def die() -> bool:
        kill(rig.gateways[0].pid)
        return False

    rig.worker((await client.session(name))["worker"]).wire.up.on(b"POST /generate", die)
    seen = await client.turn(name, plan[1], idempotency_key="k1")
    assert seen.outcome == "broken"
    assert seen.ids == []
    assert (await other.session(name))["turns"] == 1
    asked = await other.turn_view(name, heads.turn_id(session["uid"], "k1"))
    assert asked.body["state"] in {"running", "aborted"}
    reply = await insist(other, name, plan[1], idempotency_key="k1")
    await settled(other, name, 1, expected[1], reply)
    same([await other.turn(name, plan[2])], expected[2:])


async def test_killed_in_the_middle_the_rerun_sends_only_what_is_new(rig, client, other):
    plan = turns(22, new=60)
    expected = await tell(other, plan)
    name = (await client.open())["name"]
    await client.turn(name, plan[0])
    broken = await turn(client, name, plan[1], at_token(15, lambda: kill(rig.gateways[0].pid)), idempotency_key="k2")
    assert broken.outcome == "broken"
    assert broken.ids == expected[1].ids[: len(broken.ids)]
    again = Streamed(ids=list(broken.ids))
    deadline = asyncio.get_running_loop().time() + 20
    while True:
        async for _ in other.stream(name, plan[1], again, idempotency_key="k2", last_event_id=broken.events[-1].id):
            pass
        if again.reply is None or asyncio.get_running_loop().time() > deadline:
            break
        assert again.reply.type == "turn_in_flight"
        await asyncio.sleep(0.1)
        again = Streamed(ids=list(broken.ids))
    assert again.outcome == "committed", again.reply
    assert again.named("turn.restarted") == []
    assert again.ids == expected[1].ids
    assert min(event.seq for event in again.named("token")) > broken.named("token")[-1].seq
    assert (await other.session(name))["turns"] == 2
    same([await other.turn(name, plan[2])], expected[2:])


async def test_the_rerun_draws_with_the_stored_seed(rig, client, other):
    body = {**turns(23, new=40, greedily=False)[1]}
    body["sampling"] = {name: value for name, value in body["sampling"].items() if name != "seed"}
    name = (await client.open())["name"]
    broken = await turn(client, name, body, at_token(12, lambda: kill(rig.gateways[0].pid)), idempotency_key="k3")
    assert broken.outcome == "broken"
    reply = await insist(other, name, body, idempotency_key="k3")
    assert reply.body["output_ids"][: len(broken.ids)] == broken.ids


async def test_killed_before_the_commit_the_turn_never_happened_until_it_is_sent_again(rig, client, other):
    plan = turns(24)
    expected = await tell(other, plan)
    name = (await client.open())["name"]
    await client.turn(name, plan[0])
    gateway = rig.gateways[0]

    async def hold() -> bool:
        gateway.wire.up.hold()
        asyncio.get_running_loop().call_later(0.2, kill, gateway.pid)
        return True

    rig.worker((await client.session(name))["worker"]).wire.down.on(FINISHED, hold)
    seen = await client.turn(name, plan[1], idempotency_key="k4")
    assert seen.outcome == "broken"
    assert seen.ids == expected[1].ids
    await rig.drop_gateway(gateway)
    assert (await other.session(name))["turns"] == 1
    reply = await insist(other, name, plan[1], idempotency_key="k4")
    await settled(other, name, 1, expected[1], reply)
    same([await other.turn(name, plan[2])], expected[2:])


async def test_killed_after_the_commit_the_outcome_is_told_not_made_again(rig, client, other):
    plan = turns(25)
    expected = await tell(other, plan)
    name = (await client.open())["name"]
    await client.turn(name, plan[0])
    gateway = rig.gateways[0]

    async def swallow() -> bool:
        gateway.wire.down.swallow = True
        return True

    rig.worker((await client.session(name))["worker"]).wire.down.on(FINISHED, swallow)
    streaming = asyncio.create_task(client.turn(name, plan[1], idempotency_key="k5"))
    await eventually(lambda: has_turns(other, name, 2), "the commit to reach Redis")
    kill(gateway.pid)
    assert (await streaming).outcome == "broken"
    running = sum(worker.wire.up.passed for worker in rig.workers)
    reply = await other.say(name, plan[1], idempotency_key="k5")
    await settled(other, name, 1, expected[1], reply)
    generated = sum(worker.wire.up.passed for worker in rig.workers) - running
    assert generated < 2000, "the stored outcome was told without asking a worker"
    same([await other.turn(name, plan[2])], expected[2:])


async def test_a_commit_whose_reply_is_lost_is_committed_once(rig, client, other):
    plan = turns(26)
    expected = await tell(other, plan)
    name = (await client.open())["name"]
    await client.turn(name, plan[0])
    wire = rig.gateways[0].wire

    async def swallow() -> bool:
        wire.down.swallow = True
        return True

    rig.worker((await client.session(name))["worker"]).wire.down.on(FINISHED, swallow)
    streaming = asyncio.create_task(client.turn(name, plan[1]))
    await eventually(lambda: has_turns(other, name, 2), "the commit to reach Redis")
    wire.calm()
    wire.cut()
    same([await streaming], expected[1:2])
    assert (await other.session(name))["turns"] == 2
    same([await client.turn(name, plan[2])], expected[2:])


async def test_a_zombie_commit_is_refused_once_another_took_over(rig, client, other):
    """The gateway's commit is on the wire, the lease runs out, another turn commits; then the first commit arrives."""
    plan = turns(27)
    name = (await client.open())["name"]
    first = await client.turn(name, plan[0])
    wire = rig.gateways[0].wire

    async def hold() -> bool:
        wire.up.hold()
        return True

    rig.worker((await client.session(name))["worker"]).wire.down.on(FINISHED, hold)
    streaming = asyncio.create_task(client.turn(name, plan[1]))
    await until(lambda: not wire.up.gate.is_set(), "the finish to pass")
    winner = await insist(other, name, plan[2])
    assert winner.body["state"] == "committed"
    wire.up.release()
    loser = await streaming
    assert loser.outcome in {"aborted", "unknown", "broken"}
    found = await other.history(name)
    assert [entry["head"] for entry in found["turns"]] == [first.end["head"], winner.body["head"]]
    assert found["turns"][1]["output_ids"] == winner.body["output_ids"]


async def test_a_gateway_frozen_past_its_lease_does_not_commit(rig, client, other):
    plan = turns(28, new=60)
    name = (await client.open())["name"]
    first = await client.turn(name, plan[0])
    gateway = rig.gateways[0]
    freeze = at_token(10, lambda: kill(gateway.pid, signal.SIGSTOP))
    streaming = asyncio.create_task(turn(client, name, plan[1], freeze))
    winner = await insist(other, name, plan[2], timeout_s=30)
    kill(gateway.pid, signal.SIGCONT)
    loser = await streaming
    if winner.body["turn_index"] == 1:
        assert loser.outcome in {"aborted", "unknown", "broken"}
    found = await other.history(name)
    assert found["turns"][0]["head"] == first.end["head"]
    assert found["turns"][-1]["output_ids"] == winner.body["output_ids"]
    assert len(found["turns"]) == 2 + (loser.outcome == "committed")


async def test_a_frozen_gateway_does_not_call_a_turn_aborted_that_another_committed(rig, client, other):
    """The client lost patience and sent the same key elsewhere; its first connection still waits."""
    plan = turns(30, new=1200)
    expected = await tell(other, plan)
    name = (await client.open())["name"]
    await client.turn(name, plan[0])
    gateway = rig.gateways[0]
    freeze = at_token(10, lambda: kill(gateway.pid, signal.SIGSTOP))
    streaming = asyncio.create_task(turn(client, name, plan[1], freeze, idempotency_key="k6"))
    await asyncio.sleep(0.3)
    reply = await insist(other, name, plan[1], timeout_s=30, idempotency_key="k6")
    kill(gateway.pid, signal.SIGCONT)
    first = await streaming
    await settled(other, name, 1, expected[1], reply)
    assert first.outcome in {"committed", "unknown", "broken"}, first.end


async def test_a_gateway_told_to_stop_lets_its_turns_finish(rig, client):
    plan = turns(29, new=60)
    expected = await tell(client, plan)
    name = (await client.open())["name"]
    await client.turn(name, plan[0])
    gateway = rig.gateways[0]
    seen = await turn(client, name, plan[1], at_token(5, lambda: kill(gateway.pid, signal.SIGTERM)))
    same([seen], expected[1:2])
    assert await gateway.process.stop() == 0
