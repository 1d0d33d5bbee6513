"""What is due by Redis's clock is done once, whoever asks."""

from __future__ import annotations

import asyncio

import pytest

from berth_api import errors
from berth_gateway.ledger.errors import FenceLost
from berth_gateway.ledger.records import Limits


@pytest.fixture(autouse=True)
async def worker(kit):
    await kit.worker(slots=9)


async def test_an_idle_session_first_hibernates_then_closes(kit):
    session = await kit.open(limits=Limits(hibernate_after_s=60, idle_timeout_s=600))
    await kit.turn()
    assert (await kit.ledger.reap("default")).hibernated == []
    await kit.age("alice", 61)
    reaped = await kit.ledger.reap("default")
    assert reaped.hibernated == ["alice"]
    assert [(release.uid, release.worker) for release in reaped.releases] == [(session.uid, "w1")]
    assert (await kit.session()).state == "hibernated"
    await kit.age("alice", 540)
    assert (await kit.ledger.reap("default")).closed == ["alice"]
    with pytest.raises(errors.SessionClosing) as refusal:
        await kit.open(uid=session.uid)
    assert refusal.value.members["reason"] == "idle_timeout"


async def test_the_clock_starts_at_a_turns_end_and_never_fires_during_one(kit):
    await kit.open(limits=Limits(idle_timeout_s=60))
    await kit.turn()
    await kit.age("alice", 59)
    acquired = await kit.acquire(turn="t2")
    await kit.age("alice", 61)
    assert (await kit.ledger.reap("default")).closed == []
    await kit.commit(acquired)
    await kit.age("alice", 59)
    assert (await kit.ledger.reap("default")).closed == []
    await kit.age("alice", 2)
    assert (await kit.ledger.reap("default")).closed == ["alice"]


async def test_a_turn_whose_gateway_died_is_ended_after_a_grace(kit):
    await kit.open()
    zombie = await kit.acquire()
    await kit.expire(by_s=1)
    assert (await kit.ledger.reap("default")).expired == []
    await kit.expire(by_s=11)
    assert (await kit.ledger.reap("default")).expired == ["alice"]
    assert (await kit.ledger.outcome("default", "alice", "t1")).reason == "gateway_lost"
    assert (await kit.ledger.worker("default", "w1")).idle == ["alice"]
    with pytest.raises(FenceLost):
        await kit.commit(zombie)


async def test_a_renewed_turn_is_left_alone(kit):
    await kit.open()
    acquired = await kit.acquire()
    await kit.expire(by_s=11)
    await kit.ledger.renew(acquired.fence, lease_s=60)
    assert (await kit.ledger.reap("default")).expired == []
    assert (await kit.commit(acquired)).outcome.state == "committed"


async def test_a_closing_session_whose_gateway_died_is_closed(kit):
    await kit.open()
    await kit.acquire()
    await kit.ledger.close("default", "alice")
    await kit.expire(by_s=11)
    reaped = await kit.ledger.reap("default")
    assert (reaped.expired, [release.name for release in reaped.releases]) == (["alice"], ["alice"])
    with pytest.raises(errors.NoSuchSession):
        await kit.session()


async def test_several_gateways_at_once_reap_each_session_once_in_batches(kit, other):
    names = [f"s{number}" for number in range(9)]
    for name in names:
        await kit.open(name, limits=Limits(idle_timeout_s=60))
        await kit.age(name, 61)
    passes = await asyncio.gather(*(ledger.reap("default", limit=2) for ledger in (kit.ledger, other, kit.ledger)))
    assert [reaped.more for reaped in passes] == [True] * 3
    rest = await kit.ledger.reap("default")
    assert not rest.more
    closed = [name for reaped in [*passes, rest] for name in reaped.closed]
    assert sorted(closed) == names
