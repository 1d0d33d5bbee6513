"""The change stream: read, follow, and be told when following is no longer enough."""

from __future__ import annotations

import pytest

from berth_api import errors
from berth_api.admin import Change


async def test_a_follower_sees_what_moved_and_no_turns_but_the_first(kit):
    start = (await kit.ledger.changes("default")).cursor
    await kit.worker()
    await kit.open()
    await kit.turn()
    await kit.turn(turn="t2")
    await kit.ledger.close("default", "alice")
    seen = await kit.ledger.changes("default", after=start)
    assert seen.changes == [
        Change("worker", "w1", "registered"),
        Change("session", "alice", "opened"),
        Change("session", "alice", "bound"),
        Change("session", "alice", "begun"),
        Change("session", "alice", "closed"),
    ]
    assert (await kit.ledger.changes("default", after=seen.cursor)).changes == []


async def test_changes_are_read_in_parts_and_the_same_again(kit):
    start = (await kit.ledger.changes("default")).cursor
    for number in range(5):
        await kit.worker(f"w{number}")
    first = await kit.ledger.changes("default", after=start, limit=2)
    assert [change.name for change in first.changes] == ["w0", "w1"]
    rest = await kit.ledger.changes("default", after=first.cursor)
    assert [change.name for change in rest.changes] == ["w2", "w3", "w4"]
    assert await kit.ledger.changes("default", after=start, limit=2) == first


async def test_registering_a_worker_again_unchanged_is_no_change(kit):
    await kit.worker()
    start = (await kit.ledger.changes("default")).cursor
    await kit.worker()
    assert (await kit.ledger.changes("default", after=start)).changes == []


async def test_a_waiting_turn_is_a_change_of_its_fleet(kit):
    await kit.worker(cordoned=True)
    await kit.open()
    start = (await kit.ledger.changes("default")).cursor
    for _ in range(2):
        with pytest.raises(errors.NoCapacity):
            await kit.acquire()
    assert (await kit.ledger.changes("default", after=start)).changes == [Change("fleet", "default", "waiting")]


@pytest.mark.parametrize("cursor", ["", "x", "x:", ":1", "x:-1", "x:1e3", "x:" + "9" * 40, "x:٣"])
async def test_what_is_no_cursor_is_gone(kit, cursor):
    with pytest.raises(errors.CursorGone):
        await kit.ledger.changes("default", after=cursor)


async def test_a_cursor_of_trimmed_entries_is_gone(kit):
    start = (await kit.ledger.changes("default")).cursor
    for number in range(3):
        await kit.worker(f"w{number}")
    await kit.redis.xtrim("berth:{default}:changes", maxlen=1, approximate=False)
    with pytest.raises(errors.CursorGone):
        await kit.ledger.changes("default", after=start)


async def test_a_cursor_of_a_wiped_ledger_is_gone(kit):
    await kit.worker()
    cursor = (await kit.ledger.changes("default")).cursor
    before = await kit.ledger.ledger_id("default")
    assert cursor.startswith(before)
    await kit.redis.flushdb()
    with pytest.raises(errors.CursorGone):
        await kit.ledger.changes("default", after=cursor)
    assert await kit.ledger.ledger_id("default") != before
