"""When a session ends: never under a running turn."""

from __future__ import annotations

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


async def test_a_turn_is_no_idle_time_however_long(worker, row, judge):
    """The clock starts when a turn ends: one that outlasts the timeout neither loses its session nor leaves it late."""
    session = await worker.open(timeout=0.25)
    said = await session.say(worker.words(20), row.lasting)
    assert said.meta["e2e_latency"] > 0.25
    await session.say(worker.words(9), 8)

    async def gone() -> bool:
        return (await worker.memory())["session_held"] == 0

    await until(gone)
    await session.refuses([5], says="is not open")
    await worker.holds_nothing()
    worker.sessions.remove(session)
    judge(session.turns)
