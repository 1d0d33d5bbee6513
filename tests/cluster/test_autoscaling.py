"""A fleet that follows its sessions: it grows before they find no slot, shrinks after they are gone, and wakes."""

from __future__ import annotations

from typing import Any

import pytest

from clusterkit.scene import Scene
from clusterkit.waiting import until
from fleetkit.client import greedy
from fleetkit.story import turn, words

pytestmark = pytest.mark.timeout(600)

BODY = greedy(words(1, 4), 4)


@pytest.fixture
def berth_args() -> dict[str, Any]:
    """A busy machine may take more than a minute to start a worker."""
    return {"gateway_args": ["--lease-s", "10", "--stall-s", "5", "--capacity-wait-s", "120"]}


async def talkers(scene: Scene, count: int, **fields: Any) -> list[str]:
    """Open sessions that each hold a slot, for they have said something."""
    names = [(await scene.client.open(fleet="tiny", **fields))["name"] for _ in range(count)]
    for name in names:
        reply = await scene.client.say(name, BODY)
        assert reply.status == 200, reply
    return names


async def sized(scene: Scene, workers: int) -> None:
    """Wait until the fleet wants so many workers, and has them."""

    async def so() -> bool:
        return (await scene.status("ifl/tiny")).get("desiredReplicas") == workers

    await until(so, f"{workers} workers are wanted", 120)
    if workers:
        await scene.settled()


async def test_free_slots_are_kept_ready(scene: Scene) -> None:
    """Two slots a worker, one of them free at any time: 1 worker for 1 session, 2 for 2, 3 for 4."""
    scaling = {"min": 1, "max": 3, "bufferSlots": 1, "scaleDownStabilization": "6s"}
    await scene.fleet(slots=2, autoscaling=scaling)
    await sized(scene, 1)
    names = []
    for workers, sessions in ((1, 1), (2, 2), (3, 4)):
        names += await talkers(scene, sessions - len(names))
        await sized(scene, workers)
    heads = [(await scene.client.session(name))["head"] for name in names]

    for name in names[1:]:
        await scene.client.call("DELETE", scene.client.path(name))
    await sized(scene, 1)
    assert len(await scene.pods()) == 1

    seen = await turn(scene.client, names[0], BODY)
    assert seen.outcome == "committed"
    history = await scene.client.history(names[0])
    assert [kept["head"] for kept in history["turns"]] == [heads[0], seen.end["head"]]


async def test_a_fleet_without_a_buffer_rests_at_zero_until_a_turn_wakes_it(scene: Scene) -> None:
    scaling = {"min": 0, "max": 2, "bufferSlots": 0, "scaleDownStabilization": "3s"}
    await scene.session("alice", hibernateAfter="2s")
    await scene.fleet(slots=2, autoscaling=scaling)
    await scene.ready("ssn/alice")
    assert (await scene.client.say("alice", BODY)).status == 200

    await scene.reason("ifl/tiny", "ScaledToZero")
    assert "a turn wakes it" in await scene.reason("ssn/alice", "NoCapacity")

    async def nobody() -> bool:
        return not await scene.kubectl.items("pods")

    await until(nobody, "no pod is left", 120)
    seen = await turn(scene.client, "alice", BODY)
    assert (seen.status, seen.outcome) == (200, "committed")
    assert (await scene.client.history("alice"))["head"] == seen.end["head"]
    assert len(await scene.pods()) == 1
    await scene.ready("ssn/alice")
