"""When a session ends: never under a running turn."""

from __future__ import annotations

import pytest

from modelkit.rows import ROWS
from workerkit.waiting import until


async def test_a_close_waits_for_the_running_turn(worker, row, judge):
    session = await worker.open()
    await session.say(worker.words(20))
    async with session.stream(words := worker.words(9), row.lasting) as stream:
        await stream.until(1)
        await worker.ok("/close_session", session_id=session.id)
        await session.refuses([5], says="is closing")
        session.heard(words, row.lasting, await stream.rest())
    await worker.holds_nothing()
    await session.refuses([5], says="is not open")
    worker.sessions.remove(session)
    judge(session.turns)


async def test_an_abort_completes_a_close(worker, row):
    session = await worker.open()
    await session.say(worker.words(20))
    async with session.stream(worker.words(9), row.lasting, rid="last") as stream:
        await stream.until(1)
        await worker.ok("/close_session", session_id=session.id)
        await worker.ok("/abort_request", rid="last")
        assert (await stream.rest()).finish == "abort"
    await worker.holds_nothing()
    await session.refuses([5], says="is not open")
    worker.sessions.remove(session)


@pytest.mark.parametrize("row", ROWS[:1], ids=str, indirect=True)
async def test_a_session_is_not_reaped_during_its_turn(worker):
    """However long the turn takes. When it has ended, the session is idle, and in time its id is free again."""
    session = await worker.open(timeout=(timeout := 1.0))
    async with session.stream(worker.words(20), 8000, rid="long") as stream:
        async for said in stream:
            assert said.finish is None
            if said.meta["e2e_latency"] > timeout:
                break
        await session.refuses([5], says="in flight")
        await worker.ok("/abort_request", rid="long")
        assert (await stream.rest()).finish == "abort"

    async def reaped() -> bool:
        status, _ = await worker.post("/open_session", session_id=session.id, **session.terms)
        return status == 200

    await until(reaped)
    assert len((await session.say(worker.words(5))).prompt) == 5
