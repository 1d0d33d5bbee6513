"""A real Prometheus sees what happens on a cluster: every panel of the dashboard has data, and tells of a lost pod."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from clusterkit import monitoring
from clusterkit.monitoring import monitored
from clusterkit.scene import Scene
from clusterkit.traffic import PATIENT
from clusterkit.waiting import until
from fleetkit.client import greedy
from fleetkit.dashboard import QUERIES, asking, filled
from fleetkit.prometheus import Prometheus, faults
from fleetkit.story import at_token, same, turn, turns

SEEN_S = 90.0
"""Scrapes, the operator's polls and a worker's start on a busy machine."""
DIES_AT = 20
"""Ids of the last turn after which its pod is deleted."""


@pytest.fixture
def berth_args() -> dict[str, Any]:
    """No lease and no worker is to be lost but to the deletion."""
    return {**PATIENT, "direct": True}


async def test_every_panel_has_data_and_tells_of_a_lost_pod(scene: Scene, tmp_path: Path) -> None:
    await scene.fleet(replicas=2)
    await scene.session("alice")
    await scene.ready("ifl/tiny", "ssn/alice")
    plan = [*turns(1, count=2), turns(2, new=400, count=3)[1]]
    async with monitored(scene, tmp_path / "prometheus") as prometheus:
        await prometheus.until("sum(up)", lambda up: up == 5, "all parts are scraped", SEEN_S)
        await lint(scene)
        expected = await undisturbed(scene, plan)
        refused = await scene.client.say("nobody", greedy([1], 1))
        assert refused.status == 404
        told = [await turn(scene.client, "alice", body) for body in plan[:2]]
        before = await scene.pod_of("alice")
        await holds(prometheus, scene, before)

        async def lose_the_pod() -> None:
            await scene.api.delete(f"/api/v1/namespaces/{scene.namespace}/pods/{before}", grace_s=0)

        told.append(await turn(scene.client, "alice", plan[2], at_token(DIES_AT, lose_the_pod)))
        same(told, expected)
        after = await scene.pod_of("alice")
        assert after != before

        await holds(prometheus, scene, after)
        await the_panels_tell(prometheus, scene)
        await scene.ready("ifl/tiny")
        await prometheus.until("sum(up)", lambda up: up == 5, "the new worker is scraped too", SEEN_S)
        for expr in QUERIES:
            assert await prometheus.query(filled(expr, scene.namespace, "tiny")), expr


async def undisturbed(scene: Scene, plan: list) -> list:
    """Tell the turns to a session of its own, which is gone when nothing may hold a slot but alice."""
    name = (await scene.client.open(fleet="tiny"))["name"]
    told = [await turn(scene.client, name, body) for body in plan]
    assert (await scene.client.call("DELETE", scene.client.path(name))).status < 300
    return told


async def holds(prometheus: Prometheus, scene: Scene, *wanted: str) -> None:
    """Wait until the panel of the workers' slots shows one held slot on each of these pods, and none elsewhere."""
    expr = filled(asking("berth_worker_slots"), scene.namespace, "tiny")

    async def so() -> bool:
        shown = {
            one.labels["pod"]: one.value for one in await prometheus.query(expr) if one.labels["state"] == "idle_held"
        }
        assert {pod: held for pod, held in shown.items() if held} == dict.fromkeys(wanted, 1), shown
        return True

    await until(so, f"a slot is held on {wanted}", SEEN_S)


async def the_panels_tell(prometheus: Prometheus, scene: Scene) -> None:
    """One recovery: counted by the gateway with its time, and by the operator with its fleet."""
    for panel in ("increase(berth_gateway_recovery_seconds_count", "increase(berth_operator_session_recoveries_total"):
        expr = filled(asking(panel), scene.namespace, "tiny", "5m")
        await prometheus.until(expr, lambda now: round(now) == 1, panel, SEEN_S)
    (lost,) = [one for one in await prometheus.query("berth_operator_session_recoveries_total") if one.value]
    assert lost.labels["reason"] == "worker_lost"
    (p99,) = await prometheus.query(
        filled(asking("histogram_quantile(0.99, sum by (le) (rate(berth_gateway_recovery"), "", "", "5m")
    )
    assert not math.isnan(p99.value)


async def lint(scene: Scene) -> None:
    """Prometheus' own linter has nothing to say of what living parts serve; workers serve it to those with a token."""
    (worker, *_) = (await monitoring.workers(scene)).targets
    keys = scene.platform.rig.worker_headers()
    for url, headers in ((scene.platform.url, {}), (scene.platform.operator.url, {}), (worker.url, keys)):
        async with scene.http.get(f"{url}/metrics", headers=headers) as answer:
            assert answer.status == 200
            assert await faults(await answer.read()) == "", url
    async with scene.http.get(f"{worker.url}/metrics") as answer:
        assert answer.status == 401
