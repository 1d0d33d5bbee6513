"""A turn that comes to nothing: its KV is wiped, its tokens never were, and the next one goes on from the last good."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from modelkit.rows import SHORT, SLOTS
from modelkit.talk import Conversation, Worker, together
from workerkit.waiting import until

LONG = 1500
"""Tokens of an output that is not over before somebody ends it."""


async def after(session: Conversation, good: int) -> None:
    """Give a session its good turns."""
    for _ in range(good):
        await session.say(session.worker.words(30))


async def goes_on(session: Conversation) -> None:
    """Take two turns after one that came to nothing. Nothing is held until the first of them."""
    await session.worker.holds_nothing()
    await session.say(session.worker.words(7))
    assert (await session.say(session.worker.words(7))).cached == len(session.turns[-2].ids) - 1


@pytest.mark.parametrize("good", [0, 1, 3])
@pytest.mark.parametrize("tokens", [0, 1, 25])
async def test_an_abort_wipes_kv_and_keeps_tokens(worker, judge, good, tokens):
    """Of the first turn it leaves no slot, of a later one no half-grown one; neither commits what was said."""
    session = await worker.open()
    await after(session, good)
    async with session.stream(worker.words(40), LONG, rid="doomed") as stream:
        if tokens:
            await stream.until(tokens)
        await worker.ok("/abort_request", rid="doomed")
        assert (await stream.rest()).finish == "abort"
    await goes_on(session)
    judge(session.turns)


async def refusals(session: Conversation, says: str) -> None:
    """Send what no session takes, and what this one does not take now."""
    await session.refuses(session.worker.words(400), says=says)
    await session.refuses([5], says="temperature", sampling_params={"temperature": -1})
    for name, value in (("replace", True), ("drop_previous_output", True), ("offset", 1)):
        await session.refuses([5], says=name, session_params={name: value})


@pytest.mark.parametrize("good", [0, 2])
async def test_a_refused_turn_changes_nothing(worker, row, judge, good):
    """Not the KV of the session, and not the mark of the turn in flight: that one and no other may clear it."""
    session = await worker.open(capacity=row.lasting + 300)
    await after(session, good)
    async with session.stream(words := worker.words(40), row.lasting) as stream:
        await stream.until(1)
        for _ in range(2):
            await refusals(session, "in flight")
        session.heard(words, row.lasting, await stream.rest())
    await refusals(session, "at most")
    assert (await session.say(worker.words(5))).cached == len(session.turns[-2].ids) - 1
    await Conversation(worker, "nobody").refuses([5], says="not open")
    judge(session.turns)


@contextlib.asynccontextmanager
async def a_full_batch(worker: Worker):
    """Have requests run in every row; whatever comes now waits."""
    async with contextlib.AsyncExitStack() as stack:
        for row in range(SLOTS):
            await stack.enter_async_context(worker.stream(worker.words(5), LONG, rid=f"row {row}"))
        yield
        for row in range(SLOTS):  # these and no others: what waits for their rows may have been accepted already
            await worker.ok("/abort_request", rid=f"row {row}")


@pytest.mark.parametrize("good", [0, 2])
async def test_an_abort_of_a_queued_turn_ends_it(worker, judge, good):
    """It never ran, and is over all the same: the session is not stuck in flight."""
    session = await worker.open()
    await after(session, good)
    async with a_full_batch(worker), session.stream(worker.words(9), 8, rid="waits") as stream:
        await session.refuses([5], says="in flight")
        await worker.ok("/abort_request", rid="waits")
        said = await stream.rest()
        assert (said.finish, said.output) == ("abort", [])
    await goes_on(session)
    judge(session.turns)


@pytest.mark.parametrize("good", [0, 2])
@pytest.mark.parametrize("tokens", [0, 3])
async def test_a_client_that_goes_away_takes_its_turn_with_it(worker, judge, good, tokens):
    """The turn does not live on to commit what nobody heard, and the session takes turns again."""
    session = await worker.open()
    await after(session, good)
    async with session.stream(worker.words(9), LONG) as stream:
        if tokens:
            await stream.until(tokens)
    await session.insist(worker.words(5))
    await session.say(worker.words(5))
    judge(session.turns)


async def test_a_client_that_goes_away_without_a_stream(worker, judge):
    session = await worker.open()
    await after(session, 1)
    call = asyncio.create_task(session.say(worker.words(9), LONG))

    async def runs() -> bool:
        return bool((await worker.info())["berth"]["running"])

    await until(runs)
    call.cancel()
    await session.insist(worker.words(5))
    judge(session.turns)


async def test_a_client_that_goes_away_while_its_turn_waits(worker, judge):
    session = await worker.open()
    await after(session, 1)
    async with a_full_batch(worker):
        async with session.stream(worker.words(9), 8):
            assert (await worker.info())["berth"]["queued"]
        # The queue is in order of arrival: this one is answered when the batch has been aborted.
        again = asyncio.create_task(session.insist(worker.words(5)))
    await again
    judge(session.turns)


async def test_storm(worker, judge):
    """Sessions whose turns are aborted, abandoned, refused or good, all at once."""
    sessions = [await worker.open() for _ in range(8)]

    async def live(session: Conversation) -> None:
        for turn in range(8):
            fate = worker.dice.choice(["good", "abort", "leave", "refused"])
            words = worker.words(worker.dice.randrange(1, 60))
            if fate in ("abort", "leave"):
                async with session.stream(words, LONG, rid=f"{session.id} {turn}") as stream:
                    await stream.until(worker.dice.randrange(1, 20))
                    if fate == "abort":
                        await worker.ok("/abort_request", rid=f"{session.id} {turn}")
                        assert (await stream.rest()).finish == "abort"
            elif fate == "refused":
                await session.refuses([5], says="offset", session_params={"offset": 3})
            await session.insist(worker.words(5), worker.dice.randrange(1, 12))

    await together(*(live(session) for session in sessions))
    judge(*(session.turns for session in sessions))


@pytest.mark.parametrize("row", [SHORT], ids=str, indirect=True)
async def test_over_long_turns_leak_nothing_and_cost_the_session_nothing(worker, judge):
    """Good turns, plain requests, and inputs beyond the context, again and again: what is refused touches no KV."""
    sessions = [await worker.open() for _ in range(4)]

    async def round_of(session: Conversation) -> None:
        await session.say(worker.words(20))
        await session.refuses(worker.words(600), says="at most")
        recovered = await session.say(worker.words(10))
        assert recovered.cached == len(session.turns[-2].ids) - 1

    for _ in range(8):
        plain = [worker.generate(worker.words(worker.dice.randrange(1, 300))) for _ in range(4)]
        answers = await together(*map(round_of, sessions), *plain)
        judge(*([said] for said in answers[len(sessions) :]))
        status, answer = await worker.post("/generate", **worker.body(worker.words(600), 8, {}))
        assert status == 400, answer
    judge(*(session.turns for session in sessions))
