"""Native sessions over HTTP."""

from __future__ import annotations

import asyncio

import pytest

from workerkit.fakes import continuation
from workerkit.waiting import until

OPEN = {"capacity_of_str_len": 1000, "streaming": True}


async def say(worker, session: str, ids: list[int], **sampling):
    body = {
        "input_ids": ids,
        "session_params": {"id": session},
        "sampling_params": {"max_new_tokens": 4, "seed": 7} | sampling,
    }
    return await worker.post("/generate", body)


async def test_a_session_goes_on_where_it_was(worker):
    assert await worker.post("/open_session", OPEN | {"session_id": "s"}) == (200, "s")
    _, first = await say(worker, "s", [3, 4])
    _, second = await say(worker, "s", [5])
    assert second["output_ids"] == continuation([3, 4, *first["output_ids"], 5], 4)
    assert second["meta_info"]["prompt_tokens"] == 7
    assert second["meta_info"]["cached_tokens"] == 5
    assert await worker.post("/close_session", {"session_id": "s"}) == (200, {"success": True})
    assert (await worker.post("/close_session", {"session_id": "s"}))[0] == 404
    assert (await say(worker, "s", [6]))[0] == 400


async def test_an_id_is_made_when_none_is_given(worker):
    status, session = await worker.post("/open_session", OPEN)
    assert (status, type(session)) == (200, str)
    assert (await say(worker, session, [3]))[0] == 200


async def test_an_open_session_cannot_be_opened_again(worker):
    await worker.post("/open_session", OPEN | {"session_id": "s"})
    status, body = await worker.post("/open_session", OPEN | {"session_id": "s"})
    assert (status, body["error"]["field"]) == (400, "session_id")


@pytest.mark.parametrize("option", [{"replace": True}, {"drop_previous_output": True}, {"offset": 3}])
async def test_what_a_streaming_session_cannot_do_is_refused(worker, option):
    await worker.post("/open_session", OPEN | {"session_id": "s"})
    body = {"input_ids": [3], "session_params": {"id": "s"} | option}
    status, answer = await worker.post("/generate", body)
    assert (status, answer["error"]["field"]) == (400, f"session_params.{next(iter(option))}")
    assert (await say(worker, "s", [3]))[1]["meta_info"]["prompt_tokens"] == 1


async def test_neutral_options_of_the_older_kind_pass(worker):
    await worker.post("/open_session", OPEN | {"session_id": "s"})
    params = {"id": "s", "rid": "x", "offset": 0, "replace": False, "drop_previous_output": None}
    assert (await worker.post("/generate", {"input_ids": [3], "session_params": params}))[0] == 200


async def test_a_batch_cannot_be_a_turn(worker):
    await worker.post("/open_session", OPEN | {"session_id": "s"})
    assert (await worker.post("/generate", {"input_ids": [[3]], "session_params": {"id": "s"}}))[0] == 400


async def test_an_overlap_is_refused_and_the_winner_is_unharmed(worker, gate):
    await worker.post("/open_session", OPEN | {"session_id": "s"})
    gate.clear()
    turns = [asyncio.create_task(say(worker, "s", [3, 4])) for _ in range(5)]
    await until(lambda: worker.engine.state.running + worker.engine.state.queued > 0)
    gate.set()
    results = await asyncio.gather(*turns)
    assert sorted(status for status, _ in results) == [200, 400, 400, 400, 400]
    [won] = [body for status, body in results if status == 200]
    assert won["output_ids"] == continuation([3, 4], 4)


async def test_a_client_that_goes_aborts_its_turn_and_the_session_lives(worker, gate):
    await worker.post("/open_session", OPEN | {"session_id": "s"})
    _, first = await say(worker, "s", [3])
    gate.clear()
    turn = asyncio.create_task(say(worker, "s", [4], max_new_tokens=150))
    await until(lambda: worker.engine.state.running + worker.engine.state.queued > 0)
    turn.cancel()
    gate.set()

    async def taken() -> bool:
        return (await say(worker, "s", [5]))[0] == 200

    await until(taken)
    _, after = await say(worker, "s", [6])
    assert after["meta_info"]["prompt_tokens"] == 1 + len(first["output_ids"]) + 1 + 4 + 1
    assert worker.engine.state.turns["disconnected"] == 1


async def test_close_of_a_running_turn_is_deferred(worker, gate):
    await worker.post("/open_session", OPEN | {"session_id": "s"})
    gate.clear()
    turn = asyncio.create_task(say(worker, "s", [3]))
    await until(lambda: worker.engine.state.running + worker.engine.state.queued > 0)
    closing = asyncio.create_task(worker.post("/close_session", {"session_id": "s"}))
    gate.set()
    assert await closing == (200, {"success": True})
    assert (await turn)[0] == 200
    assert (await worker.post("/close_session", {"session_id": "s"}))[0] == 404


async def test_flush_leaves_everything_available(worker):
    await worker.post("/open_session", OPEN | {"session_id": "s"})
    await say(worker, "s", [3])
    held = await worker.memory()
    assert held["session_held"] > 0
    parts = ("available", "evictable", "protected", "session_held", "uncached")
    assert sum(held[part] for part in parts) == held["total"]
    assert (await worker.post("/flush_cache"))[0] == 200
    memory = await worker.memory()
    assert memory["available"] == memory["total"]
    assert memory["rows"] == {"free": 4, "total": 4}
    assert (await say(worker, "s", [4]))[1]["meta_info"]["cached_tokens"] == 0


async def test_a_timeout_closes_an_idle_session(worker, driver):
    await worker.post("/open_session", OPEN | {"session_id": "s", "timeout": 5})
    await say(worker, "s", [3])
    driver.now = 5.5
    await until(lambda: worker.engine.state.memory.session_held == 0)
    assert (await say(worker, "s", [3]))[0] == 400
