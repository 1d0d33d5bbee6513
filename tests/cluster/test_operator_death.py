"""The operator is killed at any moment, runs twice, or sleeps and wakes: what it has made is the same every time."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from clusterkit.audit import Audit
from clusterkit.census import Wanted, looked_again, settled
from clusterkit.crowd import by_the_operator, writes_a_session
from clusterkit.platform import ACCOUNT, Operator
from clusterkit.scene import Scene, fleet, session, template
from clusterkit.waiting import until
from fleetkit.procs import port_of
from fleetkit.proxy import Proxy

pytestmark = pytest.mark.timeout(900)

SEED = 20
KILLS = 10
"""In each of the three rounds."""
REQUESTS, SECONDS = range(1, 80), (0.2, 3.0)
"""An operator dies after so many requests of its own to the API server, or so long after the first of them."""
LISTS = 6
"""Complete lists, by which every operator that lives has seen everything."""
MOST_WRITES = 12
"""To one session's status, each round; an undisturbed operator makes two or three."""

LARGE = [f"a{number:02}" for number in range(30)]
SMALL = [f"b{number:02}" for number in range(12)]
RESTING = [f"c{number:02}" for number in range(8)]
SUSPENDED, REMADE, DELETED = LARGE[:10], LARGE[25:], (*LARGE[20:25], *SMALL[:6], *RESTING[:4])

Round = Callable[[Scene], Awaitable[None]]
Disturb = Callable[[Round, Wanted], Awaitable[None]]


@pytest.fixture
def berth_args() -> dict[str, Any]:
    """Patience with workers: no pod but those that are wanted, however busy this machine is."""
    return {"operator_args": ["--unreachable-s", "120"]}


async def apply(scene: Scene) -> None:
    """Three fleets, one of which rests, and fifty sessions."""
    fleets = [fleet("large", slots=64), fleet("small", slots=16), fleet("resting", replicas=0)]
    members = {"large": LARGE, "small": SMALL, "resting": RESTING}
    sessions = [session(name, fleet=name_of) for name_of, names in members.items() for name in names]
    await scene.kubectl.apply([*fleets, *sessions])


async def update(scene: Scene) -> None:
    """A new revision, one fleet to rest and one to wake; sessions suspended, and limited."""
    fleets = [
        fleet("large", slots=64, template=template(ROUND="2")),
        fleet("small", slots=16, replicas=0),
        fleet("resting"),
    ]
    suspended = [session(name, fleet="large", suspend=True) for name in SUSPENDED]
    limited = [session(name, fleet="large", maxTokens=4096) for name in LARGE if name not in SUSPENDED]
    await scene.kubectl.apply([*fleets, *suspended, *limited])


async def delete(scene: Scene) -> None:
    """A fleet without its sessions, sessions without their fleet, and names used again at once."""
    await scene.kubectl.delete("ssn", "--wait=false", *DELETED, *REMADE)
    await scene.session(*REMADE, fleet="large")
    await scene.kubectl.delete("ifl", "--wait=false", "small")
    await scene.kubectl.apply(fleet("resting", replicas=0))


def _each(names: list[str] | tuple[str, ...], reason: str) -> dict[str, str]:
    return dict.fromkeys(names, reason)


APPLIED = Wanted(
    {"large": 1, "small": 1, "resting": 0},
    _each([*LARGE, *SMALL], "Bound") | _each(RESTING, "NoCapacity"),
)
UPDATED = Wanted(
    {"large": 1, "small": 0, "resting": 1},
    _each([*LARGE, *RESTING], "Bound") | _each(SUSPENDED, "Suspended") | _each(SMALL, "NoCapacity"),
)
REDUCED = Wanted(
    {"large": 1, "resting": 0},
    _each([*LARGE[10:20], *REMADE], "Bound")
    | _each(SUSPENDED, "Suspended")
    | _each(SMALL[6:], "FleetNotFound")
    | _each(RESTING[4:], "NoCapacity"),
)
PODS = ["large", "large", "resting", "small"]
"""All that the three rounds want: the large fleet's has two revisions."""


async def test_killed_at_thirty_moments_it_comes_to_the_same_end(scene: Scene, audit: Audit) -> None:
    rng = random.Random(SEED)
    operator = scene.platform.operator

    async def kill_again_and_again(work: Round, _: Wanted) -> None:
        await operator.kill()
        before = audit.mark()
        await work(scene)
        for _ in range(KILLS):
            await operator.launch()
            await dies(operator, audit, rng)
        await operator.start()
        assert len(by_the_operator(audit, before)) > KILLS, "most of them got to work before they died"

    await rounds(scene, audit, kill_again_and_again)


async def test_two_at_once_do_no_harm_even_if_one_believes_in_the_past(scene: Scene, audit: Audit) -> None:
    """In the second round nothing of the API server reaches one of them; in the third it sleeps, and wakes at the end.

    Both times the gateways tell it of workers that it has never heard of, and it knows of workers that are no more.
    """
    async with twin(scene) as (other, wire):

        async def beside_each_other(work: Round, wanted: Wanted) -> None:
            if work is update:
                wire.down.hold()
            if work is delete:
                wire.calm()
                other.pause()
            await work(scene)
            if work is delete:
                await settled(scene, wanted, "one of them is enough", 180)
                other.resume()
                await looked_again(scene, audit, LISTS)

        await rounds(scene, audit, beside_each_other)


@asynccontextmanager
async def twin(scene: Scene) -> AsyncIterator[tuple[Operator, Proxy]]:
    """A second operator, and its way to the API server."""
    wire = await Proxy(port_of(scene.platform.cluster.url)).start()
    operator = scene.platform.operator.twin(wire.port)
    await operator.start()
    try:
        yield operator, wire
    finally:
        await operator.kill()
        await wire.close()


async def rounds(scene: Scene, audit: Audit, disturb: Disturb) -> None:
    """Apply, update, delete; the end of each is as wanted, and the way there was no longer than it should be."""
    began = audit.mark()
    for work, wanted in ((apply, APPLIED), (update, UPDATED), (delete, REDUCED)):
        before = await audit.caught_up(scene.api)
        await disturb(work, wanted)
        await settled(scene, wanted, f"after {work.__name__} all is as wanted", 180)
        writes = writes_a_session(audit, before)
        assert max(writes.values()) <= MOST_WRITES, writes.most_common(5)
    await quiet(scene, audit)
    made = audit.writes(since=began, user=f":{ACCOUNT}", resource="pods", verb="create")
    assert sorted(write.name.partition("-")[0] for write in made) == PODS
    assert len({write.name for write in made}) == len(PODS), "no place was filled twice"
    await told_once(scene)


async def told_once(scene: Scene) -> None:
    """Each of the sessions that were there all the time has moved once, and people read of it once."""
    moved = LARGE[10:20]
    recoveries = {name: (await scene.status(f"ssn/{name}"))["recoveries"] for name in moved}
    assert recoveries == dict.fromkeys(moved, 1)
    for reason, names in (("Recovered", moved), ("FleetNotFound", SMALL[6:])):
        told = Counter(event["involvedObject"]["name"] for event in await scene.events(reason))
        assert {name: told[name] for name in names} == dict.fromkeys(names, 1), reason


async def quiet(scene: Scene, audit: Audit) -> None:
    """Nothing is left to do: some complete lists on, the operator has written nothing."""
    before = await audit.caught_up(scene.api)
    await looked_again(scene, audit, LISTS)
    assert audit.writes(since=before, user=f":{ACCOUNT}") == []


async def dies(operator: Operator, audit: Audit, rng: random.Random) -> None:
    """Let it live for a random while, counted in what it does, and kill it."""
    before, requests, seconds = audit.mark(), rng.choice(REQUESTS), rng.uniform(*SECONDS)
    began: float | None = None

    async def its_time() -> bool:
        nonlocal began
        done = len(by_the_operator(audit, before))
        began = began or (time.monotonic() if done else None)
        return done >= requests or (began is not None and time.monotonic() - began > seconds)

    await until(its_time, "the operator gets to work", every_s=0.02)
    await operator.kill()
