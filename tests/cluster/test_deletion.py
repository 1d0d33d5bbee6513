"""What is deleted is gone within a minute, whoever is dead meanwhile; and nothing else is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from clusterkit import cluster as clusters
from clusterkit.api import Api
from clusterkit.census import ledger_sessions
from clusterkit.scene import Scene
from clusterkit.waiting import until
from fleetkit.story import turn, turns

pytestmark = pytest.mark.timeout(600)

GONE_S = 60.0
FIRST, SECOND, THIRD = turns(7, new=20)


@pytest.fixture
async def others(api: Api, namespace: str) -> AsyncIterator[list[str]]:  # noqa: ARG001 - whose nodes outlive these
    """Two more namespaces."""
    made = [await clusters.make_namespace(api) for _ in range(2)]
    yield made
    for name in made:
        await clusters.drop_namespace(api, name)


@pytest.fixture
def namespaces(namespace: str, others: list[str]) -> list[str]:
    return [namespace, *others]


@pytest.fixture
def berth_args() -> dict[str, Any]:
    """An operator of all namespaces, as the chart starts it."""
    return {"everywhere": True}


async def test_fleets_and_namespaces_go_and_take_nothing_else_along(scene: Scene, others: list[str]) -> None:
    """Two namespaces with equal names: one goes under a living operator, the other under a dead one."""
    here, there = map(scene.within, others)
    for one in (here, there):
        await one.fleet()
        await one.session("alice")
    for one in (here, there):
        await one.ready("ifl/tiny", "ssn/alice")
        assert (await turn(one.client, "alice", FIRST)).outcome == "committed"
        await no_finalizers(one)
    assert (await turn(here.client, "alice", SECOND)).outcome == "committed"
    assert [(await one.client.session("alice"))["turns"] for one in (here, there)] == [2, 1]
    before = await here.client.session("alice")

    await scene.api.delete(f"/api/v1/namespaces/{there.namespace}")
    await gone(there)
    await namespace_gone(there)
    assert await here.client.session("alice") == before, "a namesake is not touched"

    await here.kubectl.delete("ifl", "tiny", "--wait=false")
    await gone(here, sessions=["alice"])
    await here.reason("ssn/alice", "FleetNotFound")
    await here.fleet()
    await here.ready("ifl/tiny", "ssn/alice")
    assert (await turn(here.client, "alice", THIRD)).outcome == "committed"
    after = await here.client.session("alice")
    assert (after["uid"], after["turns"]) == (before["uid"], 3), "its sessions wait for it"

    await scene.platform.operator.kill()
    await scene.api.delete(f"/api/v1/namespaces/{here.namespace}")
    await namespace_gone(here)
    assert "alice" in await ledger_sessions(here), "nobody could close it"
    await scene.platform.operator.start()
    await gone(here)


async def no_finalizers(scene: Scene) -> None:
    """Nothing of ours can be stuck."""
    for found in await scene.kubectl.items("ifl,ssn,pods"):
        assert "finalizers" not in found["metadata"], found["metadata"]


async def gone(scene: Scene, sessions: list[str] | None = None) -> None:
    """Wait until the ledger knows no worker of the namespace and no session but these, and no pod is there."""

    async def so() -> bool:
        assert await scene.platform.admin("GET", f"/admin/workers?namespace={scene.namespace}") == []
        assert list(await ledger_sessions(scene)) == (sessions or [])
        return await scene.kubectl.items("pods") == []

    await until(so, f"all of {scene.namespace} is gone", GONE_S, every_s=0.5)


async def namespace_gone(scene: Scene) -> None:
    async def so() -> bool:
        return await scene.api.find(f"/api/v1/namespaces/{scene.namespace}") is None

    await until(so, f"namespace {scene.namespace} is gone", GONE_S)
