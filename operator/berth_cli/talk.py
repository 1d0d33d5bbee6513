"""Shows one turn as it streams, and keeps what of it is worth knowing afterwards."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from rich.console import Console

from berth_api.public import (
    TurnAborted,
    TurnCommitted,
    TurnMoved,
    TurnRestarted,
    TurnStarted,
    TurnToken,
    TurnUnknown,
    Usage,
)
from berth_cli.client import TurnEvent
from berth_cli.console import harmless
from berth_cli.errors import TurnFailed


@dataclass
class Told:
    """What one turn's stream told. Times are of the monotonic clock, in seconds."""

    turn: str = ""
    ids: list[int] = field(default_factory=list)
    text: str = ""
    worker: str = ""
    moves: list[TurnMoved] = field(default_factory=list)
    first_after_move: float | None = None
    usage: Usage | None = None

    def take(self, event: TurnEvent) -> None:
        """Add an event. Raises TurnFailed for an end that is no commit."""
        match event:
            case TurnStarted(turn=turn, worker=worker):
                self.turn, self.worker = turn, worker
            case TurnToken(ids=ids, text=text):
                self.ids += ids
                self.text += text
                if self.moves and self.first_after_move is None:
                    self.first_after_move = time.monotonic()
            case TurnMoved(to=to):
                self.moves.append(event)
                self.worker = to
                self.first_after_move = None
            case TurnRestarted():
                self.ids, self.text = [], ""
            case TurnCommitted(usage=usage):
                self.usage = usage
            case TurnAborted(reason=reason):
                raise TurnFailed(f"the turn was aborted: {reason}; the session is as it was before")
            case TurnUnknown(reason=reason):
                raise TurnFailed(f"nobody knows whether the turn was kept: {reason}")


async def show(
    stream: AsyncGenerator[TurnEvent], out: Console, each: Callable[[Told], Awaitable[None]] | None = None
) -> Told:
    """Print a turn as it comes and return what it told; `each` hears of it at every event.

    Cancelled, it closes the stream at once.
    """
    told = Told()
    async with aclosing(stream) as events:
        async for event in events:
            told.take(event)
            _print(event, out)
            if each is not None:
                await each(told)
    out.print()
    return told


def _print(event: TurnEvent, out: Console) -> None:
    match event:
        case TurnToken(text=text):
            out.print(harmless(text), end="", style="bold")
        case TurnMoved(from_=source, to=to, recomputed_tokens=tokens):
            _aside(out, f"worker {short(source)} is gone; {short(to)} goes on, {tokens} tokens computed again")
        case TurnRestarted(reason=reason):
            _aside(out, f"the answer starts again: {reason}")


def short(worker: str) -> str:
    """Return a worker's id as far as a person needs it: without the boot."""
    return worker.partition(".")[0]


def _aside(out: Console, text: str) -> None:
    out.print()
    out.print(f"  [{text}]", style="yellow")
