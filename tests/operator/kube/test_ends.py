"""A pod that is over is buried, and one that does not answer is killed; people hear of each that nobody told to end."""

from __future__ import annotations

from berth_operator.kube.store import Body
from kubekit.bodies import fleet, node
from kubekit.world import World


async def test_a_pod_that_was_told_to_end_has_not_failed(world: World) -> None:
    world.add_node()
    world.cluster.put("fleet", fleet(replicas=1))
    await world.rounds(2)
    world.run_pods()
    await world.until(lambda: world.condition("fleet", "tiny").get("reason") == "AllReady")
    (pod,) = world.cluster.all("pod")

    over = {**pod["status"], "phase": "Succeeded"}
    told = {**pod["metadata"], "deletionTimestamp": world.clock.stamp()}
    world.cluster.put("pod", {**pod, "metadata": told, "status": over})
    await world.rounds(3)

    assert world.cluster.made("create_event") == []
    assert [each["metadata"]["uid"] for each in world.cluster.all("pod")] != [pod["metadata"]["uid"]]


async def test_one_that_ends_by_itself_has(world: World) -> None:
    world.add_node()
    world.cluster.put("fleet", fleet(replicas=1))
    await world.rounds(2)
    world.run_pods()
    await world.until(lambda: world.condition("fleet", "tiny").get("reason") == "AllReady")
    (pod,) = world.cluster.all("pod")

    world.cluster.put("pod", {**pod, "status": {**pod["status"], "phase": "Failed", "reason": "Evicted"}})
    await world.rounds(3)

    assert [event["reason"] for event in world.cluster.events.values()] == ["WorkerFailed"]


async def test_one_that_does_not_get_ready_is_killed_and_told_of(world: World) -> None:
    world.add_node()
    world.cluster.put("fleet", fleet(replicas=1))
    await world.rounds(2)
    (pod,) = world.cluster.all("pod")
    world.run_pod(pod, ready=False)
    await world.rounds(901)
    assert told(world) == [f"pod {name(pod)} is replaced. It was not ready after 900 s"]


async def test_so_is_one_that_does_not_answer_any_more(world: World) -> None:
    await world.serve(replicas=1)
    (pod,) = world.cluster.all("pod")
    (ready,) = [each for each in pod["status"]["conditions"] if each["type"] == "Ready"]
    unready = ready | {"status": "False", "lastTransitionTime": world.clock.stamp()}
    world.cluster.put("pod", pod | {"status": pod["status"] | {"conditions": [unready]}})
    await world.rounds(62)
    assert told(world) == [f"pod {name(pod)} is replaced. It has not answered for 60 s"]


async def test_and_one_of_a_silent_node(world: World) -> None:
    await world.serve(replicas=1)
    world.add_node("node-2")
    (pod,) = world.cluster.all("pod")
    world.cluster.put("node", node(ready="Unknown", since=world.clock.stamp()))
    await world.rounds(62)
    assert told(world) == [f"pod {name(pod)} is replaced. Its node has been silent for 60 s"]


def told(world: World) -> list[str]:
    return [event["message"] for event in world.cluster.events.values() if event["reason"] == "WorkerFailed"]


def name(pod: Body) -> str:
    return f"{pod['metadata']['name']} ({pod['metadata']['uid']})"
