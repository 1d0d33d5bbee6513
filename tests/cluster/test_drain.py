"""Workers leave in an orderly way, by whoever's order: turns end where they run, or go on elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from clusterkit.api import Object
from clusterkit.scene import Scene
from clusterkit.traffic import PATIENT, talking
from clusterkit.waiting import until
from fleetkit.client import Streamed, greedy
from fleetkit.sse import Event
from fleetkit.story import Hook, same, turn, words

pytestmark = pytest.mark.timeout(600)

OPENING = greedy(words(1, 4), 4)
LONG = 3000
"""Output ids of a turn that takes longer than any worker here is given to end: 10 s where nothing else runs."""
SAID = 600
"""Output ids that take longer than the operator's pause between two looks at who runs what: 2 s."""


@pytest.fixture
def berth_args() -> dict[str, Any]:
    return PATIENT


async def evict(scene: Scene, pod: str) -> None:
    """Ask for a pod's eviction, as `kubectl drain` does."""
    path = f"/api/v1/namespaces/{scene.namespace}/pods/{pod}/eviction"
    metadata = {"name": pod, "namespace": scene.namespace}
    await scene.api.create(path, {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata})


async def gone(scene: Scene, pod: Object) -> None:
    """Wait until a pod is gone, whoever has its name now."""

    async def so() -> bool:
        return pod["metadata"]["uid"] not in {each["metadata"]["uid"] for each in await scene.kubectl.items("pods")}

    await until(so, f"pod {pod['metadata']['name']} is gone", 120)


async def scale(scene: Scene, replicas: int) -> None:
    await scene.kubectl.raw("scale", "ifl/tiny", f"--replicas={replicas}")


async def one_more(scene: Scene) -> tuple[str, str]:
    """Open a session and have it say something; return the pod on which it found a slot, and its name."""
    name = (await scene.client.open(fleet="tiny"))["name"]
    await turn(scene.client, name, OPENING)
    return await scene.pod_of(name), name


async def one_on_each(scene: Scene) -> dict[str, str]:
    """Open sessions until every pod has one of them, close the others; return those by pod, pods by name."""
    pods, found, others = {pod["metadata"]["name"] for pod in await scene.pods()}, dict[str, str](), list[str]()
    while found.keys() != pods:
        pod, name = await one_more(scene)
        if found.setdefault(pod, name) != name:
            others.append(name)
    for name in others:
        await scene.client.call("DELETE", scene.client.path(name))
    return dict(sorted(found.items()))


def once_all_have(ids: int, turns: int, act: Callable[[], Awaitable[None]]) -> Hook:
    """A hook for so many turns, that acts once when each of them has got so many ids."""
    far = set[str]()

    async def hook(event: Event, seen: Streamed) -> None:
        if event.name == "token" and len(seen.ids) >= ids and seen.turn not in far:
            far.add(seen.turn)
            if len(far) == turns:
                await act()

    return hook


async def test_evicted_and_deleted_workers_lose_no_turn(scene: Scene) -> None:
    """Each worker in turn, under traffic: by the eviction API, and one more by `kubectl delete pod`."""
    await scene.fleet(replicas=2, slots=12)
    await scene.settled()

    async with talking(scene) as talk:
        for pod in await scene.pods():
            await evict(scene, pod["metadata"]["name"])
            await gone(scene, pod)
            await scene.settled()
            await talk.goes_on()
        last = (await scene.pods())[0]
        await scene.kubectl.delete("pod", last["metadata"]["name"])
        await scene.settled()

    assert not await scene.events("WorkerFailed"), "who was told to end has not failed"


async def test_a_turn_beyond_the_drain_deadline_moves_and_goes_on(scene: Scene) -> None:
    """By eviction, where the worker counts the time, and by `kubectl scale`, where the operator does."""
    await scene.fleet(replicas=2, drainDeadline="1s")
    await scene.settled()
    plan = [greedy(words(seed, 8), LONG) for seed in (2, 3)]
    quiet = await one_on_each(scene)
    expected = await asyncio.gather(*map(turn, [scene.client] * 2, quiet.values(), plan))

    pod, alice = await one_more(scene)
    told = await turn(scene.client, alice, plan[0], once_all_have(SAID, 1, lambda: evict(scene, pod)))
    same([told], expected[:1])
    assert len(told.named("turn.moved")) == 1
    assert 'moves_total{reason="draining"} 1.0' in (await scene.client.call("GET", "/metrics")).body.decode()
    await scene.settled()

    both = await one_on_each(scene)
    scaling = once_all_have(SAID, 2, lambda: scale(scene, 1))
    told_both = await asyncio.gather(*map(turn, [scene.client] * 2, both.values(), plan, [scaling] * 2))
    same(told_both, expected)
    assert sum(len(seen.named("turn.moved")) for seen in told_both) == 1
    await scene.settled()


async def test_scaling_down_takes_the_longest_idle_then_the_emptiest_and_waits_for_its_turn(scene: Scene) -> None:
    await scene.fleet(replicas=3, drainDeadline="2m")
    await scene.settled()
    homes = await one_on_each(scene)
    (idle, _), *others = homes.items()
    await asyncio.gather(*(turn(scene.client, name, greedy(words(4, 4), SAID)) for _, name in others))

    await scale(scene, 2)
    await scene.settled()
    assert {pod["metadata"]["name"] for pod in await scene.pods()} == homes.keys() - {idle}

    fuller, _ = await one_more(scene)
    (emptier,) = homes.keys() - {idle, fuller}
    scaling = once_all_have(SAID, 2, lambda: scale(scene, 1))
    long = greedy(words(5, 4), LONG)
    told = await asyncio.gather(*(turn(scene.client, name, long, scaling) for _, name in others))

    assert [seen.outcome for seen in told] == ["committed"] * 2
    assert not any(seen.named("turn.moved") for seen in told), "both were waited for"
    await scene.settled()
    assert [pod["metadata"]["name"] for pod in await scene.pods()] == [fuller]
    assert await scene.pod_of(homes[fuller]) == fuller
    assert (await scene.client.session(homes[emptier]))["worker"] is None
