"""A session's turns told twice: once with nothing failing, once with faults. What clients saw must be equal."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from fleetkit.client import Client, Reply, Streamed, greedy, sampled
from fleetkit.sse import Event

Body = Mapping[str, Any]
Hook = Callable[[Event, Streamed], Awaitable[None]]
"""Called with each event of a turn, after the transcript has taken it."""

BYTES = 256
"""Ids of ordinary bytes; the special ids above are the model's business."""


def words(seed: int, count: int) -> list[int]:
    """Random input ids, the same for the same seed."""
    rng = random.Random(seed)
    return [rng.randrange(BYTES) for _ in range(count)]


def turns(seed: int, *, new: int = 40, count: int = 3, greedily: bool = True, prompt: int = 12) -> list[Body]:
    """`count` turns; the middle ones have `new` output ids, the others 8."""
    made: list[Body] = []
    for number in range(count):
        ids = words(100 * seed + number, prompt)
        length = new if 0 < number < count - 1 else 8
        made.append(greedy(ids, length) if greedily else sampled(ids, length, seed + number))
    return made


async def tell(client: Client, plan: Sequence[Body], hooks: Mapping[int, Hook] | None = None) -> list[Streamed]:
    """Run the turns on a new session; `hooks` by the turn's number."""
    name = (await client.open())["name"]
    return [await turn(client, name, body, (hooks or {}).get(number)) for number, body in enumerate(plan)]


async def turn(client: Client, name: str, body: Body, hook: Hook | None = None, **headers: str) -> Streamed:
    """Stream one turn, with a hook."""
    seen = Streamed()
    async for event in client.stream(name, body, seen, **headers):
        if hook is not None:
            await hook(event, seen)
    return seen


def at_token(count: int, act: Callable[[], Awaitable[None] | None]) -> Hook:
    """A hook that acts once, when `count` ids have come."""
    done = False

    async def hook(event: Event, seen: Streamed) -> None:
        nonlocal done
        if not done and event.name == "token" and len(seen.ids) >= count:
            done = True
            if (waiting := act()) is not None:
                await waiting

    return hook


def same(told: Sequence[Streamed], expected: Sequence[Streamed]) -> None:
    """Ids, text, finish and prompt of every turn are equal, and every turn is committed."""
    for number, (left, right) in enumerate(zip(told, expected, strict=True)):
        assert (left.outcome, right.outcome) == ("committed", "committed"), f"turn {number}: {left.end} {right.end}"
        assert left.ids == right.ids, f"turn {number} differs at {_first_difference(left.ids, right.ids)}"
        assert left.text == right.text, f"turn {number}"
        assert left.end["finish_reason"] == right.end["finish_reason"], f"turn {number}"
        assert left.end["head"] == right.end["head"], f"turn {number}"
        for part in ("prompt_tokens", "completion_tokens"):
            assert left.end["usage"][part] == right.end["usage"][part], f"turn {number}"


def _first_difference(left: list[int], right: list[int]) -> int:
    return next((at for at, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


async def insist(client: Client, name: str, body: Body, *, timeout_s: float = 20.0, **headers: str) -> Reply:
    """Send a turn without a stream until it is no longer refused for one in flight; that refusal has Retry-After."""
    deadline = time.monotonic() + timeout_s
    while True:
        reply = await client.say(name, body, **headers)
        if reply.type not in {"turn_in_flight", "ledger_unavailable"} or time.monotonic() > deadline:
            return reply
        if reply.type == "turn_in_flight":
            assert float(reply.headers["Retry-After"]) > 0
        await asyncio.sleep(0.1)


async def eventually(ask: Callable[[], Awaitable[bool]], what: str, timeout_s: float = 20.0) -> None:
    """Ask until it is so; TimeoutError names `what` otherwise."""
    deadline = time.monotonic() + timeout_s
    while not await ask():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s:g} s: {what}")
        await asyncio.sleep(0.03)
