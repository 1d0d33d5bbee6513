"""Promise 3: a ledger that lost history says so; it is never silently shorter."""

from __future__ import annotations

import uuid

import pytest

from berth_api import errors


@pytest.fixture(autouse=True)
async def alice(kit):
    await kit.worker()
    session = await kit.open()
    for turn in ("t1", "t2", "t3"):
        await kit.turn(turn=turn)
    return session


LOSSES = {
    "first turn": ["turn:0"],
    "middle turn": ["turn:1"],
    "last turn": ["turn:2", "head:2"],
    "a head": ["head:1"],
    "an input's length": ["input:1"],
}


@pytest.mark.parametrize("lost", LOSSES.values(), ids=LOSSES.keys())
async def test_a_turn_that_went_missing_is_noticed_by_every_operation(kit, alice, lost):
    await kit.redis.hdel("berth:{default}:session:alice", *lost)
    for act in (
        kit.acquire(turn="t4"),
        kit.open("fork", fork=("alice", None)),
        kit.ledger.history("default", "alice", uid=alice.uid),
        kit.ledger.heads("default", "alice", uid=alice.uid),
    ):
        with pytest.raises(errors.HistoryLost):
            await act
    assert (await kit.session()).turns == 3


@pytest.mark.parametrize("change", ["closed", "lost"])
async def test_what_changes_under_a_reader_is_noticed(kit, alice, make_ledger, change):
    """Between learning where the ids lie and reading them."""
    reader = make_ledger()
    command = reader._transport.command

    async def late(*words):
        if change == "closed":
            await kit.ledger.close("default", "alice")
            await kit.open()
        else:
            await kit.redis.hdel("berth:{default}:session:alice", "turn:1")
        return await command(*words)

    reader._transport.command = late
    with pytest.raises(errors.NoSuchSession if change == "closed" else errors.HistoryLost):
        await reader.history("default", "alice", uid=alice.uid)


async def test_a_head_that_does_not_fit_is_noticed(kit):
    await kit.raw("alice", head="0" * 40)
    with pytest.raises(errors.HistoryLost):
        await kit.acquire(turn="t4")


async def test_a_loss_during_a_turn_is_noticed_by_its_commit(kit):
    acquired = await kit.acquire(turn="t4")
    await kit.redis.hdel("berth:{default}:session:alice", "turn:1")
    with pytest.raises(errors.HistoryLost):
        await kit.commit(acquired)
    assert (await kit.session()).turns == 3


async def test_a_counter_of_another_time_is_noticed(kit):
    """As if an older value of one field had come back."""
    await kit.raw("alice", turns=2)
    with pytest.raises(errors.HistoryLost):
        await kit.acquire(turn="t4")


@pytest.mark.parametrize("seen", [(1, "a" * 40), (4, "a" * 40)], ids=["another head", "more turns"])
async def test_a_resource_that_saw_more_than_there_is_marks_the_session_lost(kit, seen):
    uid = str(uuid.uuid4())
    await kit.open("bob", uid=uid, origin="cr")
    await kit.turn("bob")
    session = await kit.open("bob", uid=uid, origin="cr", seen=seen)
    assert session.lost
    with pytest.raises(errors.HistoryLost):
        await kit.acquire("bob", "t2")


async def test_a_ledger_that_never_heard_of_the_session_does_not_start_it_empty(kit):
    session = await kit.open("bob", origin="cr", seen=(7, "a" * 40), bind=True)
    assert (session.lost, session.turns, session.worker) == (True, 0, None)
    with pytest.raises(errors.HistoryLost):
        await kit.acquire("bob", "t1")


async def test_what_the_resource_saw_and_is_there_is_no_loss(kit):
    uid = str(uuid.uuid4())
    await kit.open("bob", uid=uid, origin="cr", seen=(0, ""))
    head = (await kit.turn("bob")).outcome.head
    await kit.turn("bob", "t2")
    assert not (await kit.open("bob", uid=uid, origin="cr", seen=(1, head))).lost
