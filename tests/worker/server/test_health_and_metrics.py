"""Health is the engine's, not only the socket's; metrics are the snapshot's."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from berth_worker.settings import ServerSettings
from workerkit.waiting import until


@pytest.fixture
def server_settings() -> ServerSettings:
    return ServerSettings(step_limit_s=0.05, drain_s=5.0, keepalive_s=0.02)


async def unhealthy(worker) -> bool:
    return (await worker.get("/health"))[0] == 503


async def test_a_step_that_hangs_fails_health_until_it_returns(worker, gate):
    gate.clear()
    turn = asyncio.create_task(worker.post("/generate", {"input_ids": [3]}))
    await until(lambda: unhealthy(worker))
    _, body = await worker.get("/health")
    assert "overdue" in body["error"]["message"]
    gate.set()
    assert (await turn)[0] == 200

    async def healthy():
        return (await worker.get("/health"))[0] == 200

    await until(healthy)  # the answer leaves before the step's books are closed


async def test_a_waiting_stream_is_kept_alive_by_comments(worker, gate):
    gate.clear()
    async with worker.open_turn("u", [3, 4]) as response:
        assert await response.content.readline() == b": \n"
        gate.set()
        rest = await response.read()
    assert b'"finished"' in rest


async def test_a_draining_worker_says_so_and_lets_turns_finish(worker, gate):
    gate.clear()
    async with worker.open_turn("u", [3, 4]) as response:
        drain = asyncio.create_task(worker.server.drain())
        gate.set()
        assert b'"finished"' in await response.read()
    await drain
    with pytest.raises(OSError):
        await worker.get("/health")


async def test_while_draining_new_work_is_refused(worker):
    await worker.engine.ask(lambda core: core.drain())
    status, body = await worker.get("/health")
    assert (status, body["error"]["type"]) == (503, "draining")
    status, body = await worker.post("/generate", {"input_ids": [3]})
    assert (status, body["error"]["type"]) == (503, "draining")
    assert (await worker.turn("u", [3]))[0] == 503
    assert (await worker.post("/open_session", {"capacity_of_str_len": 9, "streaming": True}))[0] == 503


async def test_metrics_add_up(worker):
    await worker.turn("u", [3, 4])
    await worker.post("/generate", {"input_ids": [3], "sampling_params": {"max_new_tokens": 2}})
    async with worker.http.get(worker.url + "/metrics") as response:
        text = await response.text()
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["berth_worker_turns_total", "length"] == 2
    assert samples["berth_worker_generated_tokens_total",] == 6
    assert samples["berth_worker_slots", "idle_held"] == 1
    assert sum(value for key, value in samples.items() if key[0] == "berth_worker_slots") == 4
    assert sum(value for key, value in samples.items() if key[0] == "berth_worker_kv_tokens") == 256
