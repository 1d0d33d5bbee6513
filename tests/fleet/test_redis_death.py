"""Redis dies, is away, comes back, comes back older: nothing acknowledged is lost, nothing untrue claimed."""

from __future__ import annotations

import asyncio
import shutil
import signal

import pytest

from fleetkit.client import Streamed
from fleetkit.procs import kill
from fleetkit.story import at_token, eventually, insist, same, tell, turn, turns

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_killed_in_the_middle_of_a_turn_and_started_again(rig, client):
    plan = turns(41, new=60)
    expected = await tell(client, plan)
    restarting: list[asyncio.Task] = []

    async def restart() -> None:
        await rig.stop_redis(signal.SIGKILL)
        await rig.start_redis()

    told = await tell(client, plan, {1: at_token(10, lambda: restarting.append(asyncio.create_task(restart())))})
    await restarting[0]
    same(told, expected)


async def test_every_acknowledged_turn_is_there_after_a_kill(rig, client):
    names = [(await client.open())["name"] for _ in range(6)]
    plan = turns(42, new=8, count=4)
    told = await asyncio.gather(*(run(client, name, plan) for name in names))
    await rig.stop_redis(signal.SIGKILL)
    await rig.start_redis()
    for name, seen in zip(names, told, strict=True):
        await eventually(lambda name=name: answers(client, name), "the gateway to reach Redis again")
        found = await client.history(name)
        assert [entry["head"] for entry in found["turns"]] == [transcript.end["head"] for transcript in seen]
        assert [entry["output_ids"] for entry in found["turns"]] == [transcript.ids for transcript in seen]


async def run(client, name, plan) -> list[Streamed]:
    return [await client.turn(name, body) for body in plan]


async def answers(client, name) -> bool:
    return (await client.call("GET", f"/v1/sessions/default/{name}")).status == 200


async def test_a_turn_that_outlives_its_ledger_is_never_called_committed(rig, client):
    plan = turns(43, new=3000)
    name = (await client.open())["name"]
    first = await client.turn(name, plan[0])
    stopping: list[asyncio.Task] = []

    def stop() -> None:
        stopping.append(asyncio.create_task(rig.stop_redis(signal.SIGKILL)))

    seen = await turn(client, name, plan[1], at_token(5, stop))
    assert seen.outcome in {"unknown", "aborted"}, seen.end
    assert (await client.call("GET", f"/v1/sessions/default/{name}")).type == "ledger_unavailable"
    assert (await client.call("GET", "/healthz")).status == 200
    assert (await client.call("GET", "/readyz")).status == 503
    await rig.start_redis()
    await eventually(lambda: answers(client, name), "the gateway to reach Redis again")
    found = await client.history(name)
    assert found["head"] == first.end["head"]
    reply = await insist(client, name, plan[1])
    assert reply.body["state"] == "committed", reply


async def test_away_at_the_start_is_said_and_healed_without_a_restart(rig, client):
    await rig.stop_redis()
    gateway = await rig.launch_gateway()
    try:
        late = client.at(gateway.url)
        assert (await late.call("GET", "/healthz")).status == 200
        assert (await late.call("GET", "/readyz")).status == 503
        refused = await late.call("POST", "/v1/sessions", {})
        assert (refused.status, refused.type) == (503, "ledger_unavailable")
        await rig.start_redis()

        async def ready() -> bool:
            return (await late.call("GET", "/readyz")).status == 200

        await eventually(ready, "the late gateway to be ready")
        assert [seen.outcome for seen in await tell(late, turns(44, new=8))] == ["committed"] * 3
    finally:
        await rig.drop_gateway(gateway)


async def test_restored_from_an_older_file_the_session_goes_on_from_there(rig, client, tmp_path):
    """The worker holds turns that the ledger forgot: they are rolled back, and epochs still move forward."""
    plan = turns(45, new=16, count=5)
    expected = await tell(client, [*plan[:2], plan[4]])
    name = (await client.open())["name"]
    told = [await client.turn(name, body) for body in plan[:2]]
    await rig.stop_redis(signal.SIGTERM)
    shutil.copytree(rig.redis_folder, tmp_path / "older")
    await rig.start_redis()
    await eventually(lambda: answers(client, name), "the gateway to reach Redis again")
    lost = [await client.turn(name, body) for body in plan[2:4]]
    assert [seen.outcome for seen in lost] == ["committed", "committed"]
    await rig.stop_redis(signal.SIGKILL)
    shutil.rmtree(rig.redis_folder)
    shutil.copytree(tmp_path / "older", rig.redis_folder)
    await rig.start_redis()
    await eventually(lambda: answers(client, name), "the gateway to reach Redis again")
    newer = await client.say(name, plan[4], if_match=f'"{lost[-1].end["head"]}"')
    assert (newer.status, newer.type) in {(409, "head_mismatch"), (410, "history_lost")}
    told.append(await client.turn(name, plan[4]))
    same(told, expected)


async def test_a_turn_in_flight_when_an_older_file_comes_back_does_not_commit_on_a_wrong_head(rig, client, tmp_path):
    plan = turns(46, new=80, count=4)
    name = (await client.open())["name"]
    first = await client.turn(name, plan[0])
    await rig.stop_redis(signal.SIGTERM)
    shutil.copytree(rig.redis_folder, tmp_path / "older")
    await rig.start_redis()
    await eventually(lambda: answers(client, name), "the gateway to reach Redis again")
    await client.turn(name, plan[0])
    restoring: list[asyncio.Task] = []

    async def restore() -> None:
        await rig.stop_redis(signal.SIGKILL)
        shutil.rmtree(rig.redis_folder)
        shutil.copytree(tmp_path / "older", rig.redis_folder)
        await rig.start_redis()

    seen = await turn(client, name, plan[1], at_token(10, lambda: restoring.append(asyncio.create_task(restore()))))
    await restoring[0]
    assert seen.outcome in {"aborted", "unknown", "broken"}, seen.end
    await eventually(lambda: answers(client, name), "the gateway to reach Redis again")
    assert (await client.history(name))["head"] == first.end["head"]


async def test_frozen_for_a_moment_costs_only_the_moment(rig, client):
    plan = turns(47, new=60)
    expected = await tell(client, plan)

    def freeze() -> None:
        kill(rig.redis.pid, signal.SIGSTOP)
        asyncio.get_running_loop().call_later(0.5, kill, rig.redis.pid, signal.SIGCONT)

    same(await tell(client, plan, {1: at_token(10, freeze)}), expected)
