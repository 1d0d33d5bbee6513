"""The ledger is away, slow, or forgets to answer: nothing is called committed that it did not say."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest


@pytest.fixture
async def own(own_redis, start_gateway, start_worker, register, fast):
    """A gateway whose Redis may die."""
    client = await start_gateway(fast, url=own_redis.url)
    worker = await start_worker(step_s=0.01)
    await register(client, worker)
    await client.open()
    return client, worker


async def test_redis_away_is_503_and_nothing_else(own, own_redis, ask, eventually):
    client, worker = own
    assert (await client.call("GET", "/readyz"))[0] == 200
    own_redis.kill()
    told = await client.turn(**ask())
    assert (told.status, told.problem["type"]) == (503, "ledger_unavailable")
    assert (await client.call("GET", "/healthz"))[0] == 200
    assert (await client.call("GET", "/readyz"))[0] == 503
    own_redis.start()

    async def again():
        return (await client.turn(**ask())).status == 200

    await eventually(again, "the gateway to find Redis again")
    assert len(worker.seen) == 1


async def test_redis_restarted_mid_turn_and_the_turn_is_committed(own, own_redis, ask, eventually):
    client, worker = own
    running = asyncio.create_task(client.turn(**ask(new=60)))
    await eventually(lambda: worker.running, "the turn to run")
    own_redis.restart()
    told = await running
    assert told.names == ["turn.started", "token", "turn.committed"]
    assert (await client.call("GET", "/v1/sessions/default/a"))[1]["turns"] == 1


async def test_redis_away_for_longer_than_the_lease_ends_the_turn(own, own_redis, ask, eventually):
    client, worker = own
    worker.step_s = 0.05
    running = asyncio.create_task(client.turn(**ask(new=200)))
    await eventually(lambda: worker.running, "the turn to run")
    own_redis.kill()
    told = await running
    assert told.last.name == "turn.aborted"
    assert told.last.data["reason"] == "lease_expired"
    assert worker.aborted
    own_redis.start()


async def test_a_commit_without_an_answer_is_unknown_and_not_committed(own, own_redis, ask, eventually):
    client, worker = own

    def kill_at_the_end(_turn, said):
        if said == 19:
            own_redis.pause()

    worker.gate = kill_at_the_end
    told = await client.turn(**ask(new=20), headers={"Idempotency-Key": "k"})
    assert (told.last.name, told.last.data["reason"]) == ("turn.unknown", "ledger_unavailable")
    own_redis.resume()
    worker.gate = None

    async def settled():
        status, view, _ = await client.call("GET", f"/v1/sessions/default/a/turns/{told.last.data['turn']}")
        return view if status == 200 and view["state"] in {"committed", "unknown", "aborted"} else None

    view = await eventually(settled, "the ledger to answer")
    turns = (await client.call("GET", "/v1/sessions/default/a"))[1]["turns"]
    assert turns == (view["state"] == "committed")


async def test_a_commit_is_tried_again_until_the_ledger_is_back(own, own_redis, ask):
    client, worker = own

    def pause_at_the_end(_turn, said):
        if said == 19:
            own_redis.pause()
            asyncio.get_running_loop().call_later(1.0, own_redis.resume)

    worker.gate = pause_at_the_end
    told = await client.turn(**ask(new=20))
    assert told.last.name == "turn.committed"


@pytest.fixture
async def chaotic(chaos_proxy, start_gateway, start_worker, register, fast):
    """A gateway whose Redis loses replies, and whose lease is renewed often."""
    client = await start_gateway(replace(fast, turn=replace(fast.turn, lease_s=0.9)), url=chaos_proxy.url)
    worker = await start_worker()
    await register(client, worker)
    await client.open()
    return client, worker


@pytest.mark.parametrize("lost", range(1, 4))
async def test_a_lost_reply_changes_nothing_for_the_client(chaotic, chaos_proxy, ask, lost):
    client, worker = chaotic

    def lose(_turn, said):
        if said == 5:
            chaos_proxy.lose_replies = lost

    worker.gate = lose
    worker.step_s = 0.02  # long enough for renewals to be lost too
    told = await client.turn(**ask(new=30))
    assert told.last.name == "turn.committed"
    assert chaos_proxy.lost == lost
    assert (await client.call("GET", "/v1/sessions/default/a"))[1]["turns"] == 1


async def test_a_lost_reply_to_the_acquire(chaotic, chaos_proxy, ask):
    client, worker = chaotic
    await client.turn(**ask())
    chaos_proxy.lose_replies = 1
    told = await client.turn(**ask("again"))
    assert told.last.name == "turn.committed"
    assert chaos_proxy.lost == 1
    assert len(worker.seen) == 2


async def test_a_session_taken_over_ends_the_turn_that_lost_it(own, own_redis, start_gateway, ask, eventually):
    client, worker = own
    worker.step_s = 0.02
    running = asyncio.create_task(client.turn(**ask(new=300)))
    await eventually(lambda: worker.running, "the turn to run")
    with own_redis.client() as redis:  # as if its lease had run out unseen
        redis.hset("berth:{default}:session:a", "lease_until", 1)
        assert redis.hget("berth:{default}:session:a", "lease_until") == b"1"
    other = await start_gateway(url=own_redis.url)
    winner = await other.turn(**ask("mine", new=2))
    assert winner.last.name == "turn.committed"
    loser = await running
    assert loser.last.name == "turn.aborted"
    assert loser.last.data["reason"] == "superseded"
    assert (await client.call("GET", "/v1/sessions/default/a"))[1]["turns"] == 1
