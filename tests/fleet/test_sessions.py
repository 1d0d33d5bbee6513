"""What many clients, and bad ones, do to a session of the whole fleet."""

from __future__ import annotations

import asyncio

import pytest

from fleetkit.client import Streamed, greedy
from fleetkit.story import eventually, insist, same, tell, turns, words

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_fifty_turns_at_once_one_runs(rig, client):
    other = client.at(rig.gateways[1].url)
    name = (await client.open())["name"]
    # Long enough that the last of them asks while the first one's turn still runs.
    bodies = [greedy([number, *words(number, 6)], 1000) for number in range(50)]
    replies = await asyncio.gather(*((client, other)[n % 2].say(name, body) for n, body in enumerate(bodies)))
    won = [number for number, reply in enumerate(replies) if reply.status == 200]
    assert len(won) == 1, [reply.status for reply in replies]
    for number, reply in enumerate(replies):
        if number not in won:
            assert (reply.status, reply.type) == (409, "turn_in_flight"), reply
            assert float(reply.headers["Retry-After"]) > 0
    found = await client.history(name)
    assert [entry["input_ids"] for entry in found["turns"]] == [bodies[won[0]]["input_ids"]]


async def test_a_client_that_goes_aborts_its_turn_and_the_next_one_runs(rig, client):
    plan = turns(61, new=2000)
    expected = await tell(client, [plan[0], plan[2]])
    name = (await client.open())["name"]
    told = [await client.turn(name, plan[0])]
    leaving = Streamed()
    stream = client.stream(name, plan[1], leaving)
    async for _ in stream:
        if len(leaving.ids) >= 5:
            break
    await stream.aclose()
    reply = await insist(client, name, plan[2], timeout_s=5)
    assert reply.body["head"] == expected[1].end["head"], reply
    assert reply.body["output_ids"] == expected[1].ids
    worker = rig.worker((await client.session(name))["worker"])

    async def idle() -> bool:
        async with client.http.get(worker.url + "/get_server_info", headers=rig.worker_headers()) as answer:
            return (await answer.json())["berth"]["running"] == 0

    await eventually(idle, "the abandoned turn to end at the worker too", 5)
    same(told, expected[:1])


async def test_a_name_deleted_and_made_again_is_another_session(client):
    plan = turns(62)
    expected = await tell(client, plan)
    first = await client.open()
    name = first["name"]
    await client.turn(name, plan[0], idempotency_key="same")
    assert (await client.call("DELETE", f"/v1/sessions/default/{name}")).status in {200, 202, 204}
    gone = await client.call("GET", f"/v1/sessions/default/{name}")
    assert (gone.status, gone.type) == (404, "no_such_session")
    again = await client.open(name)
    assert again["uid"] != first["uid"]
    assert (again["head"], again["turns"], again["tokens"]) == ("", 0, 0)
    same([await client.turn(name, body, idempotency_key=f"same{n or ''}") for n, body in enumerate(plan)], expected)


async def test_a_name_deleted_while_its_turn_runs_and_made_again(client):
    plan = turns(63, new=200)
    expected = await tell(client, plan[:1])
    first = await client.open()
    name = first["name"]
    seen = Streamed()
    deleted = None
    async for _ in client.stream(name, plan[1], seen):
        if deleted is None and len(seen.ids) > 5:
            deleted = await client.call("DELETE", f"/v1/sessions/default/{name}")
            refused = await client.say(name, plan[0])
            assert refused.type in {"session_closing", "turn_in_flight", "no_such_session"}
    assert deleted is not None
    assert deleted.status in {200, 202, 204}
    assert seen.outcome in {"committed", "aborted"}

    async def gone() -> bool:
        return (await client.call("GET", f"/v1/sessions/default/{name}")).status == 404

    await eventually(gone, "the deferred close to be done", 10)
    again = await client.open(name)
    assert again["uid"] != first["uid"]
    same([await client.turn(name, plan[0])], expected)


async def test_the_same_key_with_another_payload_is_refused(client):
    plan = turns(64)
    name = (await client.open())["name"]
    first = await client.turn(name, plan[0], idempotency_key="k")
    other = await client.say(name, plan[1], idempotency_key="k")
    assert (other.status, other.type) == (422, "idempotency_mismatch")
    again = await client.say(name, plan[0], idempotency_key="k")
    assert (again.body["output_ids"], again.body["head"]) == (first.ids, first.end["head"])
    assert (await client.session(name))["turns"] == 1


async def test_a_turn_is_stopped_or_aborted_from_the_other_gateway(rig, client):
    other = client.at(rig.gateways[1].url)
    for verb, outcome in (("stop", "committed"), ("abort", "aborted")):
        name = (await client.open())["name"]
        seen, asked = Streamed(), False
        async for _ in client.stream(name, greedy(words(65, 8), 4000), seen):
            if not asked and len(seen.ids) > 4:
                asked = True
                reply = await other.call("POST", f"/v1/sessions/default/{name}/turns/{seen.turn}/{verb}")
                assert reply.status in {200, 202}, reply
        assert seen.outcome == outcome, seen.end
        assert 4 < len(seen.ids) < 4000
        view = await other.session(name)
        assert view["turns"] == (outcome == "committed")
        if outcome == "committed":
            assert view["tokens"] == 8 + len(seen.ids)


async def test_a_fork_goes_on_from_its_source_and_leaves_it_alone(client):
    plan = turns(66, count=4)
    expected = await tell(client, plan)
    name = (await client.open())["name"]
    told = [await client.turn(name, body) for body in plan[:3]]
    fork = (await client.open(**{"from": {"session": name, "turn": 2}}))["name"]
    assert (await client.session(fork))["head"] == told[1].end["head"]
    aside = await client.turn(fork, plan[3])
    same([*told, await client.turn(name, plan[3])], expected)
    assert aside.end["head"] != expected[3].end["head"]
    whole = await tell(client, [plan[0], plan[1], plan[3]])
    assert aside.ids == whole[2].ids


async def test_more_sessions_than_slots_all_remember(client):
    plan = turns(67, new=8)
    expected = await tell(client, plan)
    names = [(await client.open())["name"] for _ in range(40)]
    told = {name: [] for name in names}
    for body in plan:
        for start in range(0, len(names), 8):
            batch = names[start : start + 8]
            for name, seen in zip(batch, await asyncio.gather(*(client.turn(n, body) for n in batch)), strict=True):
                told[name].append(seen)
    for name in names:
        same(told[name], expected)


async def test_a_background_turn_is_fetched_later(client):
    plan = turns(68)
    expected = await tell(client, plan[:1])
    name = (await client.open())["name"]
    begun = await client.say(name, {**plan[0], "background": True})
    assert begun.status in {200, 202}, begun
    turn = begun.body["turn"]

    async def done() -> bool:
        return (await client.turn_view(name, turn)).body["state"] == "committed"

    await eventually(done, "the background turn to be committed")
    view = (await client.turn_view(name, turn)).body
    assert view["output_ids"] == expected[0].ids
