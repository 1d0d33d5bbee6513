"""Nodes, pods and processes fail while sessions talk: no turn is lost or committed twice, the fleet is whole again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from clusterkit.node.node import Node
from clusterkit.scene import Scene
from clusterkit.traffic import PATIENT, talking
from clusterkit.waiting import until
from fleetkit.client import greedy
from fleetkit.story import at_token, same, turn, words

pytestmark = pytest.mark.timeout(600)

APART = {
    "affinity": {
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {
                    "labelSelector": {"matchLabels": {"berth.dev/fleet": "tiny"}},
                    "topologyKey": "kubernetes.io/hostname",
                }
            ]
        }
    }
}
"""No two workers on one node."""
LONG = 2000
WHOLE_WITHIN_S = 240.0


@pytest.fixture
def berth_args() -> dict[str, Any]:
    return {**PATIENT, "operator_args": ["--unreachable-s", "10"]}


async def node_of(scene: Scene, pod: str, nodes: list[Node]) -> Node:
    wanted = (await scene.kubectl.get("pod", pod))["spec"]["nodeName"]
    return next(node for node in nodes if node.name == wanted)


async def registered(scene: Scene) -> dict[str, bool]:
    """The workers that the gateways know: whether each is cordoned, by its pod's uid; no pod has two."""
    workers = await scene.platform.admin("GET", f"/admin/workers?namespace={scene.namespace}")
    found = {worker["id"].partition(".")[0]: worker["cordoned"] for worker in workers}
    assert len(found) == len(workers), f"two workers of one pod: {workers}"
    return found


async def whole(scene: Scene) -> None:
    """Wait until the gateways know the fleet's pods, all of them and no others, and the fleet is settled."""

    async def so() -> bool:
        return await registered(scene) == {pod["metadata"]["uid"]: False for pod in await scene.pods()}

    await scene.settled(timeout_s=WHOLE_WITHIN_S)
    await until(so, "the gateways know the fleet as it is")


async def test_a_node_cut_off_is_replaced_and_comes_back_to_nothing(
    scene: Scene, start_node: Callable[..., Awaitable[Node]]
) -> None:
    """Its worker lives on and answers the gateways: its running turn ends once, wherever; new ones go elsewhere."""
    nodes = [scene.node, await start_node(), await start_node()]
    await scene.fleet(replicas=2, slots=12, drainDeadline="5s", template=APART)
    await scene.settled()
    plan = [greedy(words(1, 4), 4), greedy(words(2, 4), LONG)]
    quiet, alice = [(await scene.client.open(fleet="tiny"))["name"] for _ in range(2)]
    expected = [await turn(scene.client, quiet, body) for body in plan]

    async with talking(scene) as talk:
        told = [await turn(scene.client, alice, plan[0])]
        pod = await scene.pod_of(alice)
        uid = (await scene.kubectl.get("pod", pod))["metadata"]["uid"]
        cut = await node_of(scene, pod, nodes)
        long = asyncio.create_task(turn(scene.client, alice, plan[1], at_token(20, cut.partition)))

        async def left() -> bool:
            return (await registered(scene)).get(uid, True)

        await until(left, "nothing begins at the worker on the silent node", 120)
        assert uid in {pod["metadata"]["uid"] for pod in await scene.pods()}, "it may still come back"
        told.append(await long)
        await talk.goes_on()
        views = await asyncio.gather(*(scene.client.session(speaker.name) for speaker in talk.speakers))
        assert uid not in {(view["worker"] or "").partition(".")[0] for view in views}

        async def replaced() -> bool:
            uids = [pod["metadata"]["uid"] for pod in await scene.pods()]
            known = await registered(scene)
            return uid not in uids and [known.get(each) for each in uids] == [False, False]

        await until(replaced, "another worker serves on another node", 180)
        await talk.goes_on()
        await cut.heal()
        await whole(scene)

    same(told, expected)
    history = await scene.client.history(alice)
    assert [kept["turn"] for kept in history["turns"]] == [seen.turn for seen in told]


async def test_nodes_that_are_switched_off_and_forgotten_are_replaced(
    scene: Scene, start_node: Callable[..., Awaitable[Node]]
) -> None:
    """Two of three at once: one is off and comes back, one is off and its Node object deleted, as a cloud does."""
    nodes = [scene.node, *[await start_node() for _ in range(4)]]
    await scene.fleet(replicas=3, slots=12, drainDeadline="5s", template=APART)
    await scene.settled()
    names = [pod["metadata"]["name"] for pod in await scene.pods()]
    crashed, dropped = [await node_of(scene, name, nodes) for name in names[:2]]
    before = [pod["metadata"]["uid"] for pod in await scene.pods()]

    async with talking(scene) as talk:
        await asyncio.gather(crashed.crash(), dropped.drop())
        await talk.goes_on()

        async def replaced() -> bool:
            known = await registered(scene)
            return sum(not cordoned and uid not in before for uid, cordoned in known.items()) == 2

        await until(replaced, "both have their successors", WHOLE_WITHIN_S)
        await crashed.heal()
        await whole(scene)

    assert [uid for uid in await registered(scene) if uid in before] == before[2:]


async def test_a_worker_that_is_killed_starts_again_in_place_and_one_that_is_evicted_elsewhere(scene: Scene) -> None:
    await scene.fleet(replicas=2, slots=24)
    await scene.session("alice")
    await scene.ready("ifl/tiny", "ssn/alice")
    await scene.settled()

    async with talking(scene) as talk:
        victim = await scene.pod_of("alice")
        uid, worker = (await scene.client.session("alice"))["worker"].split(".")
        scene.node.kill(scene.namespace, victim)

        async def back() -> bool:
            workers = await scene.platform.admin("GET", f"/admin/workers?namespace={scene.namespace}")
            boots = [worker["id"].partition(".")[2] for worker in workers if worker["id"].startswith(uid)]
            return len(boots) == 1 and boots != [worker]

        await until(back, "the pod has another worker, and only that", 120)
        await whole(scene)
        assert uid in await registered(scene), "the pod is the same"

        async def told() -> bool:
            status = await scene.status("ssn/alice")
            return status.get("recoveries") == 1 and status["lastRecovery"]["from"] == victim

        await until(told, "alice tells of her recovery")
        await talk.goes_on()

        await scene.node.evict(scene.namespace, victim)
        await whole(scene)
        assert uid not in await registered(scene)
        (event,) = await scene.events("WorkerFailed")
        assert uid in event["message"]
        assert "Evicted" in event["message"]

    assert (await scene.status("ssn/alice"))["recoveries"] <= 2
    assert len(await scene.events("Recovered")) == (await scene.status("ssn/alice"))["recoveries"]
