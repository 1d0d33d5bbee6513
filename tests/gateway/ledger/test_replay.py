"""A reply may be lost after the act: each operation, replayed blindly, answers and acts as if nothing had happened.

Every scenario runs twice from the same start, once undisturbed and once with its reply lost on the way; answers and
all that Redis holds afterwards must be equal, up to clocks and ids of calls.
"""

from __future__ import annotations

import asyncio
import re

import pytest
from msgspec import to_builtins

from berth_api.errors import BerthError, NoCapacity, TurnInFlight
from berth_gateway.ledger.records import Limits

UID = "0e3b5a0e-0f43-4f4a-9a65-0d0f2c2a9f10"
OTHER = "1e3b5a0e-0f43-4f4a-9a65-0d0f2c2a9f11"
CLOCKS = {
    "epoch",
    "lease_until",
    "last_active",
    "created",
    "holder",
    "call",
    "answer",
    "suspect_until",
    "last_recovery",
}

SCENARIOS = {}


def scenario(run):
    SCENARIOS[run.__name__] = run
    return run


@scenario
async def open_new(_, lossy):
    return lossy.open("default", "bob", OTHER, fleet="default", limits=Limits(idle_timeout_s=5))


@scenario
async def open_fork(kit, lossy):
    await kit.turn()
    return lossy.open("default", "bob", OTHER, fleet=None, fork=("alice", None))


@scenario
async def open_in_place_of_another_resource(kit, lossy):
    await kit.open("bob", origin="cr", uid=OTHER)
    await kit.turn("bob")
    return lossy.open("default", "bob", OTHER[::-1], fleet="default", origin="cr", bind=True)


@scenario
async def open_to_suspend(kit, lossy):
    await kit.open("bob", origin="cr", uid=OTHER, bind=True)
    return lossy.open("default", "bob", OTHER, fleet="default", origin="cr", suspend=True)


@scenario
async def acquire(_, lossy):
    return lossy.acquire("default", "alice", "t1", digest="d", input_tokens=2, lease_s=60)


@scenario
async def acquire_that_evicts(kit, lossy):
    await kit.worker(slots=1)
    await kit.turn()
    await kit.open("bob", uid=OTHER)
    return lossy.acquire("default", "bob", "t1", digest="d", input_tokens=2, lease_s=60)


@scenario
async def acquire_after_a_dead_gateway(kit, lossy):
    await kit.acquire(turn="t0")
    await kit.expire()
    return lossy.acquire("default", "alice", "t1", digest="d", input_tokens=2, lease_s=60)


@scenario
async def acquire_without_capacity(kit, lossy):
    await kit.ledger.cordon("default", "w1", on=True)
    return lossy.acquire("default", "alice", "t1", digest="d", input_tokens=2, lease_s=60)


@scenario
async def renew(kit, lossy):
    return lossy.renew((await kit.acquire()).fence, lease_s=60)


@scenario
async def move(kit, lossy):
    await kit.worker("w2")
    return lossy.move((await kit.acquire()).fence, lease_s=60, suspect_s=10)


@scenario
async def move_to_the_same_worker(kit, lossy):
    return lossy.move((await kit.acquire()).fence, lease_s=60, stay=True)


@scenario
async def lift(kit, lossy):
    return lossy.lift((await kit.acquire()).fence, seen=(1, 1), lease_s=60)


@scenario
async def commit(kit, lossy):
    return kit.commit(await kit.acquire(), ledger=lossy)


@scenario
async def commit_that_closes(kit, lossy):
    acquired = await kit.acquire()
    await kit.ledger.close("default", "alice")
    return kit.commit(acquired, ledger=lossy)


@scenario
async def abort(kit, lossy):
    return lossy.abort((await kit.acquire()).fence, reason="client_gone")


@scenario
async def abort_that_closes(kit, lossy):
    acquired = await kit.acquire()
    await kit.ledger.close("default", "alice")
    return lossy.abort(acquired.fence, reason="client_gone")


@scenario
async def stop(kit, lossy):
    await kit.acquire()
    return lossy.stop("default", "alice", "t1", mode="stop")


@scenario
async def stop_of_a_dead_gateways_turn(kit, lossy):
    await kit.acquire()
    await kit.expire()
    return lossy.stop("default", "alice", "t1", mode="stop")


@scenario
async def stop_that_closes(kit, lossy):
    await kit.acquire()
    await kit.ledger.close("default", "alice")
    await kit.expire()
    return lossy.stop("default", "alice", "t1", mode="abort")


@scenario
async def close(kit, lossy):
    await kit.turn()
    return lossy.close("default", "alice")


@scenario
async def close_deferred(kit, lossy):
    await kit.acquire()
    return lossy.close("default", "alice")


@scenario
async def close_retaining(kit, lossy):
    await kit.open("bob", uid=OTHER, origin="cr", limits=Limits(deletion_policy="Retain"))
    return lossy.close("default", "bob", uid=OTHER, by="cr")


@scenario
async def hibernate(kit, lossy):
    await kit.turn()
    return lossy.hibernate("default", "alice")


@scenario
async def put_worker(_, lossy):
    return lossy.put_worker("default", "w9", fleet="default", url="http://w9", slots=2, fingerprint="model")


@scenario
async def drop_worker(kit, lossy):
    await kit.turn()
    return lossy.drop_worker("default", "w1")


@scenario
async def drop_worker_in_a_turn(kit, lossy):
    await kit.acquire()
    return lossy.drop_worker("default", "w1")


@scenario
async def open_to_bind_after_a_loss(kit, lossy):
    await kit.open("bob", origin="cr", uid=OTHER, bind=True)
    await kit.ledger.drop_worker("default", "w1")
    await kit.worker("w2")
    return lossy.open("default", "bob", OTHER, fleet="default", origin="cr", bind=True)


@scenario
async def cordon(_, lossy):
    return lossy.cordon("default", "w1", on=True)


@scenario
async def reap(kit, lossy):
    await kit.open("bob", uid=OTHER, limits=Limits(hibernate_after_s=60))
    await kit.turn("bob")
    await kit.age("bob", 61)
    return lossy.reap("default")


def masked(value):
    """Without clocks and ids of calls, which no two runs share."""
    match value:
        case dict():
            return {
                key: "…"
                if key in CLOCKS or (isinstance(key, bytes) and key.decode("utf-8", "replace") in CLOCKS)
                else masked(item)
                for key, item in value.items()
            }
        case list() | tuple():
            return [masked(item) for item in value]
        case bytes():
            return masked(value.decode("latin-1"))
        case str():
            return re.sub(r"[0-9a-f]{32}-\d+", "…", value)
        case int() | float() if value > 1e12:
            return "…"
        case _:
            return value


async def outcome(kit, lossy, run, proxy, losses: int):
    await kit.redis.flushdb()
    await kit.worker()
    await kit.open(uid=UID)
    act = await run(kit, lossy)
    proxy.lose_replies = losses
    try:
        answer = to_builtins(await act)
    except BerthError as refusal:
        answer = refusal.problem()
    # Packed values carry clocks inside; what they say is compared by the answers.
    packed = ("reply", "outcomes", "tombstone", "due", "changed")
    return masked(answer), masked(await kit.state(*packed))


@pytest.mark.parametrize("run", SCENARIOS.values(), ids=SCENARIOS.keys())
async def test_a_lost_reply_changes_neither_the_answer_nor_the_ledger(kit, make_ledger, chaos_proxy, run):
    lossy = make_ledger(chaos_proxy.url)
    calm = await outcome(kit, lossy, run, chaos_proxy, losses=0)
    replayed = await outcome(kit, lossy, run, chaos_proxy, losses=2)
    assert chaos_proxy.lost == 2
    assert replayed == calm


async def test_every_operation_that_acts_has_its_scenario(kit):
    reads = {"changes", "fleet", "fleets", "heads", "history", "outcome", "outcomes", "session", "sessions", "workers"}
    whole = {"suspect"}  # each call starts the time anew, by intent
    acts = set(kit.ledger._scripts) - reads - whole
    covered = {name for name in acts if any(key == name or key.startswith(name + "_") for key in SCENARIOS)}
    assert acts == covered


async def test_a_fence_that_waited_for_capacity_is_good_after_a_lost_reply(kit, make_ledger, chaos_proxy):
    lossy = make_ledger(chaos_proxy.url)
    await kit.worker()
    await kit.open()
    acquired = await lossy.acquire("default", "alice", "t1", digest="d", input_tokens=2, lease_s=60)
    chaos_proxy.lose_replies = 1
    with pytest.raises(NoCapacity):
        await lossy.move(acquired.fence, lease_s=60, suspect_s=10)
    assert (await kit.commit(acquired)).outcome.state == "committed"


async def test_a_replay_that_comes_after_a_successor_is_refused(kit, make_ledger, chaos_proxy, other):
    """The reply of an acquire is lost, another turn commits meanwhile: the replay must not find itself the owner."""
    await kit.worker()
    await kit.open()
    lossy = make_ledger(chaos_proxy.url, retry_first_s=0.05)
    await lossy.session("default", "alice")
    first = await kit.acquire(turn="t0")
    await kit.ledger.abort(first.fence, reason="warm up")

    acquiring = lossy.acquire("default", "alice", "t1", digest="d", input_tokens=2, lease_s=0.000001)
    chaos_proxy.lose_replies = 1
    heir = None

    async def take_over():
        nonlocal heir
        while chaos_proxy.lost == 0 or (await kit.session()).epoch == first.fence.epoch:
            await kit.redis.ping()
        heir = await other.acquire("default", "alice", "t2", digest="d", input_tokens=2, lease_s=60)

    results = await asyncio.gather(acquiring, take_over(), return_exceptions=True)
    assert isinstance(results[0], TurnInFlight)
    assert (await kit.commit(heir, ledger=other)).outcome.state == "committed"
