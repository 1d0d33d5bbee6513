"""All parts together on a real control plane: the kit starts them, kills them, and has them back."""

from __future__ import annotations

import aiohttp
import pytest
from redis import asyncio as aioredis

from clusterkit.api import Api
from clusterkit.audit import Audit
from clusterkit.kubectl import Kubectl
from clusterkit.platform import ACCOUNT, Platform
from fleetkit.procs import alive

FLEET = {
    "apiVersion": "berth.dev/v1alpha1",
    "kind": "InferenceFleet",
    "metadata": {"name": "default"},
    "spec": {"model": {"builtin": "berth-tiny"}, "engine": {"dtype": "float32", "threads": 1}},
}


@pytest.mark.usefixtures("node")
async def test_a_fleet_gets_ready_by_the_rights_of_the_chart(
    berth: Platform, kubectl: Kubectl, api: Api, audit: Audit
) -> None:
    before = audit.mark()
    await kubectl.apply(FLEET)
    await kubectl.wait("inferencefleet/default", "condition=Ready", timeout_s=120)

    listed = await berth.admin("GET", "/admin/workers")
    (pod,) = await kubectl.items("pods")
    assert [worker["id"].partition(".")[0] for worker in listed] == [pod["metadata"]["uid"]]
    await audit.caught_up(api)
    made = audit.writes(since=before, user=f":{ACCOUNT}", resource="pods", namespace=kubectl.namespace)
    assert [write.verb for write in made] == ["create"]


async def redis(berth: Platform, *command: str) -> object:
    """Ask the ledger's Redis, on a connection of its own."""
    async with aioredis.from_url(berth.redis.url) as client:
        return await client.execute_command(*command)


@pytest.mark.usefixtures("node")
async def test_every_part_may_be_killed_and_is_back(berth: Platform) -> None:
    old = berth.operator.process.pid
    await berth.operator.restart()
    assert not alive(old)
    async with aiohttp.ClientSession() as http, http.get(f"{berth.operator.url}/readyz") as answer:
        assert answer.status == 200

    await redis(berth, "SET", "kept", "1")
    await berth.redis.kill()
    await berth.redis.start()
    assert await redis(berth, "GET", "kept") == b"1"
    await berth.redis.flush()
    assert await redis(berth, "GET", "kept") is None

    await berth.rig.drop_gateway(berth.gateways[0])
    assert len(berth.gateways) == 1
    assert await berth.admin("GET", "/admin/workers") == []
