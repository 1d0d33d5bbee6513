"""The whole way: resources are applied, pods run, sessions get ready; and nothing moves any more."""

from __future__ import annotations

from kubekit.bodies import fleet, session
from kubekit.world import World


async def test_a_fleet_and_its_session_get_ready(world: World) -> None:
    world.add_node()
    world.cluster.put("fleet", fleet(replicas=2))
    world.cluster.put("session", session())
    await world.rounds(2)
    assert world.condition("fleet", "tiny")["reason"] == "Progressing"

    world.run_pods()
    await world.until(lambda: world.condition("session", "alice").get("status") == "True")

    assert world.failures == []
    assert world.condition("fleet", "tiny") | {"lastTransitionTime": ""} == {
        "type": "Ready",
        "status": "True",
        "observedGeneration": 1,
        "lastTransitionTime": "",
        "reason": "AllReady",
        "message": "2 of 2 workers serve",
    }
    assert world.status("session", "alice")["phase"] == "Bound"


async def test_at_rest_it_writes_nothing_and_asks_little(world: World) -> None:
    world.add_node()
    world.cluster.put("fleet", fleet(replicas=2))
    world.cluster.put("session", session())
    await world.rounds(2)
    world.run_pods()
    await world.until(lambda: world.condition("session", "alice").get("status") == "True")
    await world.rounds(5)
    world.cluster.calls.clear()
    world.admin.calls.clear()

    await world.rounds(300)

    assert {call[0] for call in world.cluster.calls} == {"list"}
    asked = [call[0] for call in world.admin.calls]
    assert set(asked) <= {"workers", "namespaces", "changes", "fleet", "sessions"}
    assert asked.count("sessions") <= 2, "a list of all sessions is for every five minutes"
