"""What a streamed turn looks like, and what is kept of it."""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator

import pytest
from rich.console import Console

from berth_api.public import TurnAborted, TurnCommitted, TurnMoved, TurnRestarted, TurnStarted, TurnToken, Usage
from berth_api.wire import FinishReason
from berth_cli import talk
from berth_cli.client import TurnEvent
from berth_cli.console import on
from berth_cli.errors import TurnFailed

STARTED = TurnStarted("t", 1, "default-0-aa.boot", 3, 0)
MOVED = TurnMoved("default-0-aa.boot", "default-1-bb.boot", 2, 57)
DONE = TurnCommitted("t", "h", 0, Usage(3, 2, 0), FinishReason("stop"))


async def events(*told: TurnEvent) -> AsyncGenerator[TurnEvent]:
    for event in told:
        yield event


@pytest.fixture
def out() -> Console:
    return on(io.StringIO())


async def test_text_comes_as_it_is(out: Console) -> None:
    told = await talk.show(events(STARTED, TurnToken([1], "[a]"), TurnToken([2, 3], ":smile:"), DONE), out)
    assert out.file.getvalue() == "[a]:smile:\n"
    assert (told.ids, told.text, told.usage) == ([1, 2, 3], "[a]:smile:", Usage(3, 2, 0))


async def test_a_model_cannot_steer_the_terminal(out: Console) -> None:
    await talk.show(events(STARTED, TurnToken([1], "a\x1b[2Jb\r\nc\x9b"), DONE), out)
    assert out.file.getvalue() == "a\u241b[2Jb\u240d\nc\ufffd\n"


async def test_a_move_is_shown_and_timed(out: Console) -> None:
    told = await talk.show(events(STARTED, TurnToken([1], "a"), MOVED, TurnToken([2], "b"), DONE), out)
    assert "default-0-aa is gone; default-1-bb goes on, 57 tokens computed again" in out.file.getvalue()
    assert told.worker == "default-1-bb.boot"
    assert told.first_after_move is not None
    assert told.ids == [1, 2]


async def test_no_token_after_a_move_is_no_time(out: Console) -> None:
    told = await talk.show(events(STARTED, TurnToken([1], "a"), MOVED, DONE), out)
    assert told.first_after_move is None


async def test_a_restart_forgets(out: Console) -> None:
    told = await talk.show(events(STARTED, TurnToken([1], "a"), TurnRestarted("why"), TurnToken([2], "b"), DONE), out)
    assert (told.ids, told.text) == ([2], "b")


async def test_an_abort_is_an_error(out: Console) -> None:
    with pytest.raises(TurnFailed, match="no capacity"):
        await talk.show(events(STARTED, TurnAborted("t", "no capacity", True, "h")), out)
