"""A session whose worker went under it says so, and counts when it came to another."""

from __future__ import annotations

import pytest

from berth_api.admin import Change, Recovery


@pytest.fixture(autouse=True)
async def worker(kit):
    await kit.worker("w1")


async def lose(kit, name: str = "w1") -> None:
    await kit.ledger.drop_worker("default", name)


def told(recovery: Recovery | None) -> tuple[str, str, str] | None:
    return recovery and (recovery.from_, recovery.to, recovery.reason)


async def test_an_idle_session_is_stranded_until_it_is_bound_elsewhere(kit):
    await kit.open()
    await kit.turn()
    await lose(kit)
    stranded = await kit.session()
    assert (stranded.state, stranded.stranded, stranded.recoveries) == ("hibernated", True, 0)
    await kit.worker("w2")
    before = (await kit.redis.time())[0]
    await kit.turn(turn="t2")
    back = await kit.session()
    assert (back.stranded, back.recoveries, told(back.last_recovery)) == (False, 1, ("w1", "w2", "worker_lost"))
    assert before <= back.last_recovery.at < before + 60


async def test_a_resource_binds_a_stranded_session_again(kit):
    session = await kit.open(origin="cr", bind=True)
    await lose(kit)
    await kit.worker("w2")
    bound = await kit.open(uid=session.uid, origin="cr", bind=True)
    assert (bound.worker, bound.recoveries, told(bound.last_recovery)) == ("w2", 1, ("w1", "w2", "worker_lost"))
    again = await kit.open(uid=session.uid, origin="cr", bind=True)
    assert again.recoveries == 1


async def test_a_turn_that_moves_is_one_recovery(kit):
    await kit.worker("w2")
    await kit.open()
    acquired = await kit.acquire()
    moved = await kit.ledger.move(acquired.fence, lease_s=60, suspect_s=10)
    session = await kit.session()
    assert (session.recoveries, told(session.last_recovery)) == (1, ("w1", "w2", "worker_lost"))
    await lose(kit)
    await kit.ledger.move(moved.fence, lease_s=60, stay=True)
    assert (await kit.session()).recoveries == 1


async def test_a_turn_whose_worker_is_dropped_before_it_moves_is_one_recovery(kit):
    await kit.open()
    acquired = await kit.acquire()
    await lose(kit)
    running = await kit.session()
    assert (running.state, running.stranded, running.worker) == ("running", True, "w1")
    await kit.worker("w2")
    await kit.ledger.move(acquired.fence, lease_s=60)
    session = await kit.session()
    assert (session.stranded, session.recoveries, told(session.last_recovery)) == (
        False,
        1,
        ("w1", "w2", "worker_lost"),
    )


async def test_a_turn_that_ends_on_a_dropped_worker_leaves_its_session_stranded(kit):
    await kit.open()
    acquired = await kit.acquire()
    await lose(kit)
    await kit.commit(acquired)
    assert (await kit.session()).stranded
    await kit.worker("w2")
    await kit.turn(turn="t2")
    assert told((await kit.session()).last_recovery) == ("w1", "w2", "worker_lost")


async def test_the_gateway_dies_too(kit):
    """Nobody moves the turn: the next one finds the session on a worker that is gone."""
    await kit.open()
    await kit.acquire()
    await kit.expire()
    await lose(kit)
    await kit.worker("w2")
    await kit.acquire(turn="t2")
    assert told((await kit.session()).last_recovery) == ("w1", "w2", "worker_lost")


@pytest.mark.parametrize("dropped", [True, False], ids=["dropped", "still there"])
async def test_a_cordoned_workers_sessions_were_drained(kit, dropped):
    await kit.open()
    await kit.turn()
    await kit.ledger.cordon("default", "w1", on=True)
    if dropped:
        await lose(kit)
    await kit.worker("w2")
    await kit.turn(turn="t2")
    session = await kit.session()
    assert (session.recoveries, told(session.last_recovery)) == (1, ("w1", "w2", "drained"))


@pytest.mark.parametrize("broke", [True, False])
async def test_a_turn_that_saw_its_worker_go_says_how(kit, broke):
    """A pod deleted by force is cordoned by the operator as it dies: nobody drained it."""
    await kit.open()
    acquired = await kit.acquire()
    await kit.worker("w2")
    await kit.ledger.cordon("default", "w1", on=True)
    await kit.ledger.move(acquired.fence, lease_s=5.0, broke=broke)
    assert told((await kit.session()).last_recovery) == ("w1", "w2", "worker_lost" if broke else "drained")


async def test_a_session_leaves_a_suspect_worker_as_one_that_is_lost(kit):
    await kit.open()
    await kit.turn()
    await kit.ledger.suspect("default", "w1", for_s=60)
    await kit.worker("w2")
    await kit.turn(turn="t2")
    assert told((await kit.session()).last_recovery) == ("w1", "w2", "worker_lost")


@pytest.mark.parametrize("how", ["order", "clock", "eviction", "suspension"])
async def test_a_session_that_had_given_its_slot_up_lost_nothing(kit, how):
    session = await kit.open(origin="cr")
    await kit.turn()
    match how:
        case "order":
            await kit.ledger.hibernate("default", "alice")
        case "clock":
            await kit.raw("alice", hibernate_us=1)
            await kit.redis.zadd("berth:{default}:due", {"alice": 0})
            await kit.ledger.reap("default")
        case "eviction":
            await kit.worker("w1", slots=1)
            await kit.open("bob")
            await kit.turn("bob")
        case "suspension":
            await kit.open(uid=session.uid, origin="cr", suspend=True)
            await kit.open(uid=session.uid, origin="cr")
    assert (await kit.session()).state == "hibernated"
    await lose(kit)
    await kit.worker("w2")
    await kit.turn(turn="t2")
    after = await kit.session()
    assert (after.stranded, after.recoveries, after.last_recovery) == (False, 0, None)


async def test_a_fork_begins_without_its_sources_past(kit):
    await kit.open()
    await kit.turn()
    await lose(kit)
    await kit.worker("w2")
    await kit.turn(turn="t2")
    fork = await kit.open("fork", fork=("alice", None))
    assert (fork.recoveries, fork.last_recovery, fork.stranded) == (0, None, False)


async def test_a_worker_that_was_dropped_in_error_takes_its_sessions_back(kit):
    await kit.open()
    await kit.turn()
    await lose(kit)
    await kit.worker("w1")
    await kit.turn(turn="t2")
    session = await kit.session()
    assert (session.worker, session.stranded, session.recoveries) == ("w1", False, 0)


async def test_a_worker_that_was_dropped_in_error_during_a_turn_is_no_loss(kit):
    await kit.open()
    acquired = await kit.acquire()
    await lose(kit)
    await kit.worker("w1")
    await kit.commit(acquired)
    session = await kit.session()
    assert (session.state, session.stranded, session.recoveries) == ("resident", False, 0)


async def test_a_stranded_session_that_is_closed_is_gone(kit):
    session = await kit.open()
    await kit.turn()
    await lose(kit)
    await kit.ledger.close("default", "alice")
    await kit.worker("w2")
    fresh = await kit.open()
    assert (fresh.uid != session.uid, fresh.stranded) == (True, False)


async def test_followers_hear_of_every_session_that_lost_its_worker(kit):
    for name in ("idle", "busy", "elsewhere"):
        await kit.open(name)
    await kit.turn("idle")
    await kit.acquire("busy")
    start = (await kit.ledger.changes("default")).cursor
    await lose(kit)
    assert (await kit.ledger.changes("default", after=start)).changes == [
        Change("session", "idle", "worker_lost"),
        Change("session", "busy", "worker_lost"),
        Change("worker", "w1", "dropped"),
    ]
