"""Probes and metrics over the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from berth_operator.kube import http
from berth_operator.kube.metrics import Metrics


class Health:
    def __init__(self) -> None:
        self.troubles: list[str] = []
        self.waits: list[str] = []
        self.metrics = Metrics()
        self.url = ""

    async def get(self, path: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}{path}") as answer:
            return answer.status, await answer.text()


@pytest_asyncio.fixture
async def health() -> AsyncIterator[Health]:
    made = Health()
    runner, made.url = await http.serve(
        "127.0.0.1", 0, metrics=made.metrics, troubles=lambda: made.troubles, waits=lambda: made.waits
    )
    yield made
    await runner.cleanup()


async def test_all_is_well(health: Health) -> None:
    assert await health.get("/healthz") == (200, "ok\n")
    assert await health.get("/readyz") == (200, "ok\n")


async def test_what_is_awaited_is_no_reason_to_start_anew(health: Health) -> None:
    health.waits = ["waiting for the watch"]
    assert await health.get("/healthz") == (200, "ok\n")
    assert await health.get("/readyz") == (503, "waiting for the watch\n")


async def test_a_trouble_is(health: Health) -> None:
    health.troubles = ["the watch of pods is 91 s behind"]
    assert await health.get("/healthz") == (503, "the watch of pods is 91 s behind\n")
    assert await health.get("/readyz") == (503, "the watch of pods is 91 s behind\n")


async def test_metrics(health: Health) -> None:
    with health.metrics.look("fleet"):
        pass
    with pytest.raises(ValueError, match="no"), health.metrics.look("fleet"):
        raise ValueError("no")
    health.metrics.watch_queue("session", lambda: 7)
    health.metrics.watch_lateness("pod", lambda: 4.5)
    status, text = await health.get("/metrics")
    assert status == 200
    for line in (
        'berth_operator_reconcile_total{kind="fleet",outcome="done"} 1.0',
        'berth_operator_reconcile_total{kind="fleet",outcome="failed"} 1.0',
        'berth_operator_reconcile_seconds_count{kind="fleet"} 2.0',
        'berth_operator_queue_depth{kind="session"} 7.0',
        'berth_operator_watch_age_seconds{kind="pod"} 4.5',
    ):
        assert line in text.splitlines()


async def test_a_port_that_is_taken_is_said(health: Health) -> None:
    port = int(health.url.rpartition(":")[2])
    with pytest.raises(OSError, match="address already in use"):
        await http.serve("127.0.0.1", port, metrics=health.metrics, troubles=list, waits=list)
