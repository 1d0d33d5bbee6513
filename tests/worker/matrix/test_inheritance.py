"""A turn has the KV of the turns before it, and says what a request with its whole history would say."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("first", [20, 300], ids=["within-a-page", "beyond-any-page"])
async def test_a_turn_inherits_all_but_the_token_sampled_last(worker, row, judge, first):
    """Not one token less: no second −1, and no rounding down to a page, for the partial page stays attached.

    Where turns are retracted, `cached_tokens` stays that of their first admission, and the next turn has it all again.
    """
    retracts = await worker.counter("retracts")
    session = await worker.open()
    assert (await session.say(worker.words(first))).cached == 0
    for turn in range(6):
        said = await session.say(worker.words(1 + 9 * turn), 1 + 4 * turn)
        assert said.cached == len(session.turns[-2].ids) - 1
    assert (await worker.counter("retracts") > retracts) == row.retracts
    judge(session.turns)
    for said in session.turns:
        await worker.flush()
        whole = await worker.generate(said.prompt, len(said.output))
        assert (whole.output, whole.cached) == (said.output, 0)


async def test_a_turn_without_output_leaves_nothing_to_compute_again(worker, judge):
    session = await worker.open()
    await session.say(worker.words(40), 0)
    assert (await session.say(worker.words(5))).cached == 40
    judge(session.turns)


async def test_a_first_turn_shares_whole_pages_of_what_is_known(worker, row, judge):
    prompt, sessions = worker.words(300), [await worker.open() for _ in range(3)]
    for session, known in zip(sessions, (0, 299, 299), strict=True):
        assert (await session.say(prompt)).cached == known // row.page * row.page
    for session in sessions:
        assert (await session.say(worker.words(5))).cached == 307
        judge(session.turns)


async def test_after_a_flush_a_turn_begins_from_its_tokens(worker, judge):
    session = await worker.open()
    await session.say(worker.words(300))
    await worker.flush()
    assert (await session.say(worker.words(5))).cached == 0
    assert (await session.say(worker.words(5))).cached == 320
    judge(session.turns)
