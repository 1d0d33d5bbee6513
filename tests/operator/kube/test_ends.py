"""A pod that is over is buried; only one that nobody told to end has failed."""

from __future__ import annotations

from kubekit.bodies import fleet
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
