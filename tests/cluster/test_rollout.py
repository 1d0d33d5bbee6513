"""A fleet's workers are replaced while sessions talk; and what is said of workers that cannot be had."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from clusterkit.node.node import Node
from clusterkit.node.settings import Capacity
from clusterkit.scene import Scene, template
from clusterkit.serving import watched
from clusterkit.traffic import PATIENT, talking

pytestmark = pytest.mark.timeout(600)

GPU = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
UNKNOWN_IMAGE = "berth/worker:none"


@pytest.fixture
def berth_args() -> dict[str, Any]:
    return PATIENT


async def revisions(scene: Scene) -> set[str]:
    """The revisions of a fleet's pods."""
    return {pod["metadata"]["labels"]["berth.dev/revision"] for pod in await scene.pods()}


async def test_a_new_template_replaces_every_worker_and_no_turn_is_lost(scene: Scene) -> None:
    """One more at a time by default: never fewer than wanted serve, never more than one beyond them is there."""
    await scene.fleet(replicas=2, slots=12)
    await scene.settled()
    old = await revisions(scene)

    async with talking(scene) as talk, watched(scene) as seen:
        await scene.fleet(replicas=2, slots=12, template=template(CHANGED="yes"))
        await talk.goes_on()
        await scene.settled()

    assert len(await revisions(scene)) == 1
    assert await revisions(scene) != old
    assert (min(seen.workers), max(seen.pods)) == (2, 3)


async def test_workers_on_gpus_are_replaced_in_place(scene: Scene, start_node: Callable[..., Awaitable[Node]]) -> None:
    """As many GPUs as workers: one goes before the next comes, and one goes on serving."""
    await start_node(capacity=Capacity(gpus=2))
    await scene.fleet(replicas=2, slots=12, template=GPU)
    await scene.settled()
    old = await revisions(scene)

    async with talking(scene) as talk, watched(scene) as seen:
        await scene.fleet(replicas=2, slots=12, template={**GPU, **template(CHANGED="yes")})
        await talk.goes_on()
        await scene.settled()

    assert not old & await revisions(scene)
    assert (min(seen.workers), max(seen.pods)) == (1, 2)


async def test_a_template_that_cannot_start_leaves_the_old_workers_serving(scene: Scene) -> None:
    await scene.fleet(replicas=2, slots=12)
    await scene.settled()
    before = [pod["metadata"]["uid"] for pod in await scene.pods()]

    async with talking(scene, in_peace=0) as talk, watched(scene) as seen:
        await scene.fleet(replicas=2, slots=12, template={"image": UNKNOWN_IMAGE})
        assert UNKNOWN_IMAGE in await scene.reason("ifl/tiny", "ImagePull", "Stalled")
        assert (await scene.condition("ifl/tiny"))[:2] == ("True", "AllReady")
        await talk.goes_on()
        await scene.fleet(replicas=2, slots=12)
        await scene.settled()

    assert min(seen.workers) == 2
    assert [pod["metadata"]["uid"] for pod in await scene.pods()] == before


async def test_the_fleet_and_its_sessions_say_why_there_is_no_worker(scene: Scene) -> None:
    """Each trouble by its reason and in the words of whoever has it; once it is over, all is well by itself."""
    await scene.session("alice")
    troubles = (
        ("ImagePull", UNKNOWN_IMAGE, {"template": {"image": UNKNOWN_IMAGE}}),
        ("ModelLoadFailed", "flashinfer", {"engine": {"attention": "flashinfer"}}),
        ("Unschedulable", "node affinity/selector", {"template": {"nodeSelector": {"disk": "none"}}}),
    )
    for reason, words, spec in troubles:
        await scene.fleet(**spec)
        for what in ("ifl/tiny", "ssn/alice"):
            assert words in await scene.reason(what, reason), what
        assert (await scene.condition("ifl/tiny", "Stalled"))[1] == reason

    await scene.fleet()
    await scene.ready("ifl/tiny", "ssn/alice")
    await scene.settled()
