"""Many at once, more than there is room for, and for long."""

from __future__ import annotations

import contextlib

from modelkit.rows import SLOTS
from modelkit.talk import together


async def test_sessions_and_plain_requests_at_once(worker, judge):
    """Half of all prompts begin alike, so that sessions, requests and the tree share pages."""
    dice, alike = worker.dice, worker.words(280)
    sessions = [await worker.open() for _ in range(8)]
    for turn in range(6):
        turns = [
            session.say(
                (alike if at % 2 and not turn else []) + worker.words(dice.randrange(1, 40)), dice.randrange(1, 16)
            )
            for at, session in enumerate(sessions)
        ]
        plain = [worker.generate((alike if at % 2 else []) + worker.words(dice.randrange(1, 80))) for at in range(4)]
        answers = await together(*turns, *plain)
        judge(*([said] for said in answers[len(turns) :]))
    judge(*(session.turns for session in sessions))
    for session in sessions:
        await session.close()
    await worker.holds_nothing()


async def test_more_sessions_than_slots_and_kv_all_finish(worker, size, judge):
    """Idle sessions give way, so nobody waits for ever; running ones do not; whose KV was wiped says the same.

    When all talk at once, the next to talk is always the one that had to give way. When some do, the others' KV makes
    room for those who lost theirs, beside turns that run on what they kept.
    """
    count, tokens = size.crowd
    sessions = [await worker.open() for _ in range(count)]
    assert count > SLOTS
    for talking in [count] * 2 + [SLOTS - 2] * 4:
        chosen = worker.dice.sample(sessions, talking)
        await together(*(session.say(worker.words(tokens), 40) for session in chosen))
    assert sum(len(session.history) for session in sessions) > size.pool
    assert await worker.counter("slot_releases", cause="evicted")
    judge(*(session.turns for session in sessions))


async def test_a_turn_that_waits_for_room_keeps_what_it_has(worker, size, judge):
    """Its admission is tried again and again, each time from its slot, which is nevertheless not lent until it runs."""
    session = await worker.open()
    await session.say(worker.words(30))
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(worker.stream(worker.words(size.pool // 5 - 600), 8))
        assert (await session.say(worker.words(3000))).cached == 37
    judge(session.turns)


async def test_one_session_alone_equals_requests_of_its_whole_history(worker, size):
    session = await worker.open()
    for turn in range(size.alone):
        await session.say(worker.words(10 + turn % 7), 8)
    for said in session.turns:
        await worker.flush()
        assert (await worker.generate(said.prompt, 8)).output == said.output


async def test_a_long_conversation_costs_its_new_tokens_each_turn(worker, row, size, judge):
    """The first turn and the last have the same to compute, and what is held is what was said, to the page."""
    count, turns = size.flat
    sessions = [await worker.open() for _ in range(count)]
    # Not one token is shared: what two sessions hold together would count once.
    await together(*(session.say([at, *worker.words(15)]) for at, session in enumerate(sessions)))
    for _ in range(turns - 1):
        answers = await together(*(session.say(worker.words(16)) for session in sessions))
        assert {len(said.prompt) - said.cached for said in answers} == {17}
        memory = await worker.idle()
        said = sum(-(-(len(session.history) - 1) // row.page) * row.page for session in sessions)
        assert memory["session_held"] + memory["protected"] == said
    judge(*(session.turns for session in sessions))
