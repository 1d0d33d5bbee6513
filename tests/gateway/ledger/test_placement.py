"""Where turns go: to the session's own worker, else to the roomiest, and who makes room there."""

from __future__ import annotations

import pytest

from berth_api import errors


async def test_a_session_keeps_its_worker_though_another_is_roomier(kit):
    await kit.worker("w1", slots=1)
    await kit.open()
    await kit.turn()
    await kit.worker("w2", slots=9)
    assert (await kit.acquire(turn="t2")).placement.worker == "w1"


async def test_a_fork_begins_beside_its_source_while_a_slot_is_free_there(kit):
    await kit.worker("w1", slots=2)
    await kit.open()
    await kit.turn()
    await kit.worker("w2", slots=9)
    placed = []
    for name in ("first", "second"):
        await kit.open(name, fork=("alice", None))
        placed.append((await kit.acquire(name)).placement)
    assert [place.worker for place in placed] == ["w1", "w2"]
    assert [place.holds_parent for place in placed] == [False, False]


async def test_a_forks_first_choice_is_made_once(kit):
    """Later it goes where there is room, like everybody: what it shared is long gone."""
    await kit.worker("w1", slots=2)
    await kit.open()
    await kit.turn()
    await kit.worker("w2", slots=9)
    await kit.open("fork", fork=("alice", None))
    await kit.turn("fork", "t2")
    await kit.ledger.hibernate("default", "fork", uid=(await kit.session("fork")).uid)
    assert (await kit.acquire("fork", "t3")).placement.worker == "w2"


async def test_new_sessions_spread_by_free_slots_then_by_running_turns(kit):
    await kit.worker("w1", slots=2)
    await kit.worker("w2", slots=3)
    placed = []
    for name in ("a", "b", "c", "d", "e"):
        await kit.open(name)
        placed.append((await kit.acquire(name)).placement.worker)
    assert placed == ["w2", "w1", "w2", "w1", "w2"]


async def test_a_full_worker_unbinds_the_session_idle_for_longest(kit):
    await kit.worker(slots=2)
    for name in ("old", "new"):
        await kit.open(name)
        await kit.turn(name)
    await kit.open("third")
    acquired = await kit.acquire("third")
    assert (acquired.release.name, acquired.release.worker, acquired.release.url) == ("old", "w1", "http://w1")
    assert acquired.release.epoch == (await kit.session("old")).epoch
    assert [(await kit.session(name)).state for name in ("old", "new", "third")] == [
        "hibernated",
        "resident",
        "running",
    ]
    back = await kit.acquire("old", "t2")
    assert (back.release.name, back.placement.holds_parent) == ("new", False)


async def test_a_worker_of_running_turns_only_takes_more_and_sheds_them_after(kit):
    await kit.worker(slots=1)
    acquired = []
    for name in ("a", "b"):
        await kit.open(name)
        acquired.append(await kit.acquire(name))
    assert acquired[1].release is None
    fleet = await kit.ledger.fleet("default", "default")
    assert (fleet.slots, fleet.running, fleet.free) == (1, 2, 0)
    assert (await kit.commit(acquired[0])).release.name == "a"
    assert (await kit.commit(acquired[1])).release is None
    assert (await kit.ledger.worker("default", "w1")).idle == ["b"]


async def test_cordoned_and_suspect_workers_get_nothing_new(kit):
    await kit.worker("w1", slots=9)
    await kit.worker("w2")
    await kit.open()
    assert await kit.ledger.cordon("default", "w1", on=True)
    assert (await kit.acquire()).placement.worker == "w2"
    assert await kit.ledger.suspect("default", "w2", for_s=60)
    await kit.open("bob")
    with pytest.raises(errors.NoCapacity):
        await kit.acquire("bob")
    assert await kit.ledger.cordon("default", "w1", on=False)
    assert (await kit.acquire("bob")).placement.worker == "w1"
    assert await kit.ledger.suspect("default", "w2", for_s=0)
    assert not (await kit.ledger.worker("default", "w2")).suspect


async def test_a_session_leaves_its_cordoned_worker_at_its_next_turn(kit):
    await kit.worker("w1")
    await kit.open()
    await kit.turn()
    await kit.ledger.cordon("default", "w1", on=True)
    await kit.worker("w2")
    acquired = await kit.acquire(turn="t2")
    assert (acquired.placement.worker, acquired.placement.holds_parent) == ("w2", False)
    assert (await kit.ledger.worker("default", "w1")).idle == []


async def test_without_a_worker_a_turn_waits_counted_and_nothing_changes(kit):
    await kit.worker()
    await kit.open()
    await kit.ledger.drop_worker("default", "w1")
    before = await kit.session()
    for _ in range(2):
        with pytest.raises(errors.NoCapacity) as refusal:
            await kit.acquire()
    assert refusal.value.members["retry_after"] > 0
    assert await kit.session() == before
    assert (await kit.ledger.fleet("default", "default")).pending == 1
    await kit.worker("w2")
    assert (await kit.ledger.worker("default", "w2")).waiting == 1
    await kit.acquire()
    assert (await kit.ledger.fleet("default", "default")).pending == 0


async def test_a_dropped_worker_hibernates_its_idle_sessions_and_leaves_running_ones_their_fence(kit):
    await kit.worker("w1")
    for name in ("idle", "busy"):
        await kit.open(name)
        await kit.turn(name)
    acquired = await kit.acquire("busy", "t2")
    assert await kit.ledger.drop_worker("default", "w1")
    assert not await kit.ledger.drop_worker("default", "w1")
    assert (await kit.session("idle")).state == "hibernated"
    await kit.worker("w2")
    moved = await kit.ledger.move(acquired.fence, lease_s=60)
    assert moved.placement.worker == "w2"
    assert await kit.ledger.worker("default", "w1") is None


async def test_a_turn_that_ends_on_a_dropped_worker_leaves_its_session_hibernated(kit):
    await kit.worker("w1")
    await kit.open()
    acquired = await kit.acquire()
    await kit.ledger.drop_worker("default", "w1")
    ended = await kit.commit(acquired)
    assert (ended.outcome.state, ended.release) == ("committed", None)
    assert (await kit.session()).state == "hibernated"


async def test_an_address_that_comes_back_is_another_worker(kit):
    await kit.worker("pod.boot1", url="http://pod")
    await kit.open()
    await kit.turn()
    await kit.worker("pod.boot2", url="http://pod")
    await kit.ledger.drop_worker("default", "pod.boot1")
    acquired = await kit.acquire(turn="t2")
    assert (acquired.placement.worker, acquired.placement.holds_parent) == ("pod.boot2", False)


async def test_after_an_abort_the_slot_is_believed_empty(kit):
    await kit.worker()
    await kit.open()
    await kit.turn()
    await kit.ledger.abort((await kit.acquire(turn="t2")).fence, reason="x")
    acquired = await kit.acquire(turn="t3")
    assert (acquired.placement.worker, acquired.placement.holds_parent) == ("w1", False)


async def test_bind_takes_free_slots_only(kit):
    await kit.worker(slots=1)
    first = await kit.open("a", origin="cr", bind=True)
    second = await kit.open("b", origin="cr", bind=True)
    assert (first.state, second.state) == ("resident", "hibernated")
    await kit.ledger.hibernate("default", "a")
    assert (await kit.open("b", uid=second.uid, origin="cr", bind=True)).state == "resident"


async def test_hibernate_takes_the_slot_of_an_idle_session_only(kit):
    await kit.worker()
    await kit.open()
    acquired = await kit.acquire()
    assert (await kit.ledger.hibernate("default", "alice")).deferred
    await kit.commit(acquired)
    assert (await kit.ledger.hibernate("default", "alice")).release.worker == "w1"
    assert (await kit.ledger.hibernate("default", "alice")).release is None
    assert not (await kit.acquire(turn="t2")).placement.holds_parent


async def test_a_fleets_model_is_immutable_while_anything_is_bound_to_it(kit):
    await kit.worker("w1", fingerprint="one")
    await kit.open()
    await kit.ledger.drop_worker("default", "w1")
    with pytest.raises(errors.Conflict) as refusal:
        await kit.worker("w2", fingerprint="two")
    assert (refusal.value.members["pinned"], refusal.value.members["fingerprint"]) == ("one", "two")
    await kit.ledger.close("default", "alice")
    await kit.worker("w2", fingerprint="two")
    with pytest.raises(errors.Conflict):
        await kit.worker("w2", fleet="other")


async def test_workers_and_fleets_are_seen_as_they_are(kit):
    assert await kit.ledger.workers("default") == []
    with pytest.raises(errors.NoSuchFleet):
        await kit.ledger.fleet("default", "default")
    await kit.worker("w2", slots=2)
    await kit.worker("w1", slots=3, cordoned=True)
    await kit.worker("v1", fleet="vision")
    for name in ("a", "b", "c"):
        await kit.open(name)
    await kit.turn("a")
    await kit.acquire("b")
    assert [worker.id for worker in await kit.ledger.workers("default")] == ["v1", "w1", "w2"]
    assert [worker.id for worker in await kit.ledger.workers("default", fleet="vision")] == ["v1"]
    w2 = await kit.ledger.worker("default", "w2")
    assert (w2.running, w2.idle) == (["b"], ["a"])
    fleet = await kit.ledger.fleet("default", "default")
    assert (fleet.slots, fleet.resident, fleet.running, fleet.free) == (5, 2, 1, 0)
    assert (fleet.hibernated, fleet.workers, fleet.fingerprint) == (1, 2, "model")
    assert await kit.ledger.fleets("default") == ["default", "vision"]
    assert await kit.ledger.namespaces() == ["default"]


async def test_a_dead_gateways_turn_no_longer_counts_as_running(kit):
    await kit.worker()
    await kit.open()
    await kit.acquire()
    await kit.expire()
    worker = await kit.ledger.worker("default", "w1")
    assert (worker.running, worker.idle) == ([], ["alice"])
    assert (await kit.ledger.fleet("default", "default")).running == 0
