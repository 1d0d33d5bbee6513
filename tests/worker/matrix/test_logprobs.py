"""Logprobs are the model's own, and to ask for them costs nobody any KV."""

from __future__ import annotations

import pytest

from modelkit.talk import Conversation, together

OUTPUT = {"return_logprob": True}
WHOLE = OUTPUT | {"logprob_start_len": 0}


async def converse(session: Conversation, turns: int, options: dict) -> None:
    """Take turns that each have the KV of all before."""
    for turn in range(turns):
        words = session.worker.words(session.worker.dice.randrange(1, 60))
        said = await session.say(words, session.worker.dice.randrange(1, 12), **options)
        if turn:
            assert said.cached == len(session.turns[-2].ids) - 1


@pytest.mark.parametrize("options", [{}, OUTPUT, WHOLE], ids=["none", "output", "whole"])
async def test_conversations_at_once(worker, judge, size, options):
    for _ in range(size.rounds):
        sessions = [await worker.open() for _ in range(6)]
        await together(*(converse(session, 5, options) for session in sessions))
        judge(*(session.turns for session in sessions))
        for session in sessions:
            await session.close()
        await worker.holds_nothing()


async def test_a_session_is_told_what_a_request_with_its_history_is_told(worker, judge):
    session = await worker.open()
    for count in (300, 20, 1, 45):
        await session.say(worker.words(count), **WHOLE)
    judge(session.turns)
    for said in session.turns:
        await worker.flush()
        whole = await worker.generate(said.prompt, len(said.output), **WHOLE)
        judge([whole])
        assert whole.output == said.output
        for kind in ("input", "output"):
            assert [token for _, token in whole.logprobs(kind)] == [token for _, token in said.logprobs(kind)]
        assert [token for _, token in whole.logprobs("input")] == said.prompt


@pytest.mark.parametrize("start", [-1, 0, 100, 310])
async def test_asking_shrinks_no_match_and_costs_the_next_turn_nothing(worker, judge, start):
    """From 0 all is told; from within what is inherited, what is computed anyway; behind it, what was asked for."""
    session = await worker.open()
    await session.say(worker.words(300))
    asking = await session.say(worker.words(20), return_logprob=True, logprob_start_len=start)
    assert asking.cached == 307
    first = {-1: len(asking.prompt), 0: 0, 100: 307, 310: 310}[start]
    assert [token for _, token in asking.logprobs("input")] == asking.prompt[first:]
    assert (await session.say(worker.words(20))).cached == len(asking.ids) - 1
    judge(session.turns)


async def test_asking_without_a_session_shrinks_no_match_either(worker, row, judge):
    prompt = worker.words(300)
    first = await worker.generate(prompt)
    again = await worker.generate(prompt, **WHOLE)
    assert again.cached == 299 // row.page * row.page
    assert again.output == first.output
    assert [token for _, token in again.logprobs("input")] == prompt
    judge([again])
