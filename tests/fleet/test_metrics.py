"""What Grafana would show of a living fleet: a real Prometheus scrapes it and answers the dashboard's own queries."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_asyncio

from fleetkit.dashboard import QUERIES, asking, filled
from fleetkit.procs import kill
from fleetkit.prometheus import Job, Prometheus, Target
from fleetkit.rig import Rig
from fleetkit.story import at_token, turn, turns

pytestmark = pytest.mark.asyncio(loop_scope="session")

LATE = ("berth_gateway_refused_total",)
"""What has no series before its first event."""


def slots(state: str) -> str:
    return f'sum(berth_worker_slots{{state="{state}"}})'


def jobs(rig: Rig) -> list[Job]:
    """Every gateway and worker, each with the labels that a cluster's targets have."""
    worker = {"namespace": "default", "fleet": "default"}
    workers = [Target(one.url, worker | {"pod": one.id.partition(".")[0]}) for one in rig.workers]
    return [
        Job("gateway", [Target(gateway.url) for gateway in rig.gateways]),
        Job("worker", workers, token_file=rig.worker_token),
    ]


@pytest_asyncio.fixture(loop_scope="session")
async def prometheus(rig: Rig, tmp_path: Path):
    server = Prometheus(tmp_path / "prometheus")
    try:
        await server.start(*jobs(rig))
        await server.until("sum(up)", lambda up: up == 4, "every target to be scraped")
        yield server
    finally:
        await server.stop()


async def test_slots_move_recoveries_are_counted_and_the_dashboard_has_answers(rig, client, prometheus):
    recovered = await prometheus.number("sum(berth_gateway_recovery_seconds_count)")
    name = (await client.open())["name"]
    first, long, _ = turns(7, new=1000)
    await turn(client, name, first)
    await prometheus.until(slots("idle_held"), lambda now: now >= 1, "the session to hold its slot")

    async def look_and_kill() -> None:
        await prometheus.until(slots("active"), lambda now: now == 1, "the turn to be seen on its slot")
        kill(rig.worker((await client.session(name))["worker"]).pid)

    told = await turn(client, name, long, at_token(12, look_and_kill))
    assert told.outcome == "committed", told.end
    assert [event.name for event in told.events].count("turn.moved") == 1
    counted = "sum(berth_gateway_recovery_seconds_count)"
    await prometheus.until(counted, lambda now: now == recovered + 1, "the recovery to be counted")
    await prometheus.until("sum(up)", lambda up: up == 3, "the dead worker to be missed")

    for expr in QUERIES:
        answers = await prometheus.query(filled(expr, "default", "default|other"))
        if "berth_operator_" not in expr and not any(name in expr for name in LATE):
            assert answers, expr
    increase = filled(asking("increase(berth_gateway_recovery_seconds_count"), "default", "default")
    assert {sample.labels["reason"] for sample in await prometheus.query(increase) if sample.value > 0} == {
        "connection_lost"
    }
