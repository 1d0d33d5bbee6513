"""Sessions that talk in loops, at both gateways in turn, while something happens to their fleet.

async with talking(scene) as talk:
    await scene.fleet(template=template(NEW="1"))
    await talk.goes_on()

Nothing but committed turns is accepted, and at the end every session's history must be what its client saw.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from clusterkit.scene import Scene
from clusterkit.waiting import until
from fleetkit.client import Client, Streamed, greedy, sampled
from fleetkit.sse import Event
from fleetkit.story import Body, same, turn, words

SESSIONS = 20
PAUSE_S = 1.5
"""Between two turns of a session: some run at any time, and the machine has time for what the test is about."""
PROMPT, SHORT, LONG = 6, 8, 40
LONG_EVERY, RUDE_EVERY = 5, 4
WHEN_WITHIN_S = 120.0
"""A turn may wait for a worker to start, on a busy machine."""
PATIENT = {
    "gateway_args": ["--lease-s", "10", "--stall-s", "5"],
    "operator_args": ["--unreachable-s", "15"],
}
"""What the platform is to have where nothing but the load could cost a lease or a worker: see `berth_args`."""


class TurnLost(Exception):
    """A turn was not committed."""


def body(speaker: int, number: int) -> Body:
    """The same turn for the same numbers; greedy and sampled ones by turns, some of them longer."""
    ids = words(10_000 * (speaker + 1) + number, PROMPT)
    new = LONG if (speaker + number) % LONG_EVERY == 0 else SHORT
    return greedy(ids, new) if (speaker + number) % 2 else sampled(ids, new, seed=number)


@dataclass
class Speaker:
    """One session and its client. Every few turns it breaks in on itself at the other gateway, which must refuse."""

    number: int
    name: str
    clients: Sequence[Client]
    told: list[Streamed] = field(default_factory=list)

    async def speak(self) -> None:
        """Run the next turn. Raises TurnLost unless it is committed."""
        number = len(self.told)
        here, other = (self.clients[(self.number + number + step) % len(self.clients)] for step in (0, 1))
        rude = number > 0 and (self.number + number) % RUDE_EVERY == 0

        async def break_in(event: Event, seen: Streamed) -> None:
            if rude and event.name == "token" and len(seen.named("token")) == 1:
                # Should the turn be over by then, the head is another: either way it is 409.
                refused = await other.say(self.name, body(0, 0), if_match=f'"{self.told[-1].end["head"]}"')
                if (refused.status, refused.type) not in _CONFLICTS:
                    raise TurnLost(f"{self.name}, turn {number}, was broken in on: {refused}")

        seen = await turn(here, self.name, body(self.number, number), break_in)
        if seen.outcome != "committed":
            raise TurnLost(f"{self.name}, turn {number}: {seen.outcome} {seen.reply or seen.events[-1:]}")
        self.told.append(seen)

    async def check(self) -> None:
        """The session's history is what its client saw, each turn once and in order."""
        history = await self.clients[0].history(self.name)
        assert [kept["turn"] for kept in history["turns"]] == [seen.turn for seen in self.told], self.name
        for number, (kept, seen) in enumerate(zip(history["turns"], self.told, strict=True)):
            said: Any = body(self.number, number)["input_ids"]
            assert (kept["input_ids"], kept["output_ids"]) == (said, seen.ids), f"{self.name}, turn {number}"
            assert kept["head"] == seen.end["head"], f"{self.name}, turn {number}"

    async def check_in_peace(self, fleet: str) -> None:
        """Tell it all again while nothing happens: the ids are the same."""
        calm = (await self.clients[0].open(fleet=fleet))["name"]
        same(self.told, [await self.clients[0].turn(calm, body(self.number, n)) for n in range(len(self.told))])


_CONFLICTS = {(409, "turn_in_flight"), (409, "head_mismatch")}


class Talk:
    """What goes on. `goes_on` and the end of `talking` fail where any turn has failed."""

    def __init__(self, speakers: Sequence[Speaker]) -> None:
        self.speakers = speakers
        self._over = asyncio.Event()
        self._loops = [asyncio.create_task(self._loop(speaker)) for speaker in speakers]

    async def goes_on(self, turns: int = 1) -> None:
        """Wait until every session has had so many turns more, the first of them begun after now."""
        wanted = [len(speaker.told) + 1 + turns for speaker in self.speakers]

        async def so() -> bool:
            self._raise()
            return all(len(speaker.told) >= count for speaker, count in zip(self.speakers, wanted, strict=True))

        await until(so, "every session has had its turns", WHEN_WITHIN_S)

    @property
    def moves(self) -> int:
        """How often turns went to another worker in their middle."""
        return sum(len(seen.named("turn.moved")) for speaker in self.speakers for seen in speaker.told)

    async def end(self) -> None:
        """Let every session finish its turn."""
        self._over.set()
        async with asyncio.timeout(WHEN_WITHIN_S):
            await asyncio.gather(*self._loops)

    async def cancel(self) -> None:
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)

    def _raise(self) -> None:
        for loop in self._loops:
            if loop.done():
                loop.result()

    async def _loop(self, speaker: Speaker) -> None:
        await asyncio.sleep(PAUSE_S * speaker.number / len(self.speakers))
        while not self._over.is_set():
            await speaker.speak()
            await asyncio.sleep(PAUSE_S)


@asynccontextmanager
async def talking(
    scene: Scene, fleet: str = "tiny", sessions: int = SESSIONS, *, in_peace: int = 2
) -> AsyncIterator[Talk]:
    """Have sessions talk while the body runs; then check all that was said, and `in_peace` of them against an unfailed
    run.
    """
    clients = [scene.client.at(gateway.url) for gateway in scene.platform.gateways]
    opened = await asyncio.gather(*(scene.client.open(fleet=fleet) for _ in range(sessions)))
    talk = Talk([Speaker(number, view["name"], clients) for number, view in enumerate(opened)])
    try:
        await talk.goes_on()
        yield talk
        await talk.goes_on()
        await talk.end()
    finally:
        await talk.cancel()
    await asyncio.gather(*(speaker.check() for speaker in talk.speakers))
    await asyncio.gather(*(speaker.check_in_peace(fleet) for speaker in talk.speakers[:in_peace]))
