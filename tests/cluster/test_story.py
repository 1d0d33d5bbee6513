"""What Berth is for, on Kubernetes: apply a session, talk, lose its pod in mid-answer, read on."""

from __future__ import annotations

from pathlib import Path

from clusterkit.scene import Scene
from clusterkit.waiting import until
from fleetkit.client import Streamed
from fleetkit.sse import Event
from fleetkit.story import same, turn, turns

EXAMPLES = Path(__file__).parents[2] / "examples"
DIES_AT = 20
"""Ids of the third turn after which its pod is deleted."""


async def test_an_applied_session_outlives_its_pod(scene: Scene) -> None:
    """The examples as they stand: three turns, the pod gone by force in the middle of the third, nothing lost."""
    await scene.kubectl.apply_file(EXAMPLES / "fleet-cpu.yaml")
    await scene.kubectl.apply_file(EXAMPLES / "session.yaml")
    await scene.ready("ssn/alice", "ifl/tiny")
    plan = [*turns(1, count=2), turns(2, new=400, count=3)[1]]
    undisturbed = (await scene.client.open(fleet="tiny"))["name"]
    expected = [await turn(scene.client, undisturbed, body) for body in plan]
    victims: list[str] = []

    async def lose_the_pod(event: Event, seen: Streamed) -> None:
        if event.name == "token" and len(seen.ids) >= DIES_AT and not victims:
            victims.append(await scene.pod_of("alice"))
            await scene.api.delete(f"/api/v1/namespaces/{scene.namespace}/pods/{victims[0]}", grace_s=0)

    told = [await turn(scene.client, "alice", body) for body in plan[:2]]
    told.append(await turn(scene.client, "alice", plan[2], lose_the_pod))

    same(told, expected)
    (moved,) = told[2].named("turn.moved")
    status = await _recovered(scene)
    assert (status["recoveries"], status["phase"]) == (1, "Bound")
    recovery = status["lastRecovery"]
    assert (recovery["from"], recovery["to"], recovery["reason"]) == (victims[0], status["worker"], "WorkerLost")
    assert status["worker"] == await scene.pod_of("alice")
    assert moved.data["to"] == (await scene.client.session("alice"))["worker"]
    (event_,) = await scene.events("Recovered")
    assert victims[0] in event_["message"]
    assert event_["involvedObject"]["name"] == "alice"
    await scene.ready("ssn/alice", "ifl/tiny")
    assert len(await scene.pods()) == 2


async def _recovered(scene: Scene) -> dict[str, object]:
    status: dict[str, object] = {}

    async def told() -> bool:
        status.update(await scene.status("ssn/alice"))
        return bool(status.get("recoveries"))

    await until(told, "the resource tells of its recovery", 60)
    return status
