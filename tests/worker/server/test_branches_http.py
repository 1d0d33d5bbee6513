"""Sessions that do not stream, over HTTP: a tree of requests by rid."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from workerkit.fakes import BOS, continuation
from workerkit.waiting import until


def body_of(ids: list[int], rid: str | None = None, *, new: int = 4, **options) -> dict[str, Any]:
    return {
        "input_ids": ids,
        "session_params": {"id": "s", "rid": rid, **options},
        "sampling_params": {"max_new_tokens": new, "seed": 7},
    }


async def ask(worker, ids: list[int], rid: str | None = None, **options) -> dict[str, Any]:
    """Continue the request `rid` of session `s`; return the answer."""
    status, body = await worker.post("/generate", body_of(ids, rid, **options))
    assert status == 200, body
    return body


def rid_of(answer: dict[str, Any]) -> str:
    return answer["meta_info"]["id"]


async def arrived(worker, body: dict[str, Any], *, waiting: int = 0) -> asyncio.Task[tuple[int, Any]]:
    """Send a request; return when it stands in the gated step, or is the `waiting`th in the engine's mailbox."""
    task = asyncio.create_task(worker.post("/generate", body))
    state, mailbox = (lambda: worker.engine.state), worker.engine._mailbox
    await until(lambda: mailbox.qsize() == waiting and state().running + state().queued > 0)
    return task


@pytest.fixture(params=[{}, {"streaming": False}, {"streaming": None}], ids=["absent", "false", "null"])
async def opened(worker, request):
    assert await worker.post("/open_session", {"session_id": "s", "capacity_of_str_len": 100} | request.param) == (
        200,
        "s",
    )
    return worker


@pytest.fixture
async def branching(worker):
    await worker.post("/open_session", {"session_id": "s", "capacity_of_str_len": 100, "timeout": 60})
    return worker


async def test_a_session_that_does_not_stream_is_continued_by_rid(opened):
    first = await ask(opened, [3, 4])
    second = await ask(opened, [5], rid_of(first))
    other = await ask(opened, [6], rid_of(first))
    assert second["output_ids"] == continuation([3, 4, *first["output_ids"], 5], 4)
    assert other["output_ids"] == continuation([3, 4, *first["output_ids"], 6], 4)
    assert (second["meta_info"]["prompt_tokens"], second["meta_info"]["cached_tokens"]) == (7, 4)
    assert (await opened.memory())["session_held"] == 0


async def test_an_own_rid_is_what_the_next_request_names(branching):
    await branching.post("/generate", body_of([3]) | {"rid": "mine"})
    assert (await ask(branching, [4], "mine"))["meta_info"]["prompt_tokens"] == 6
    status, body = await branching.post("/generate", body_of([3]) | {"rid": "mine"})
    assert (status, body["error"]["field"]) == (400, "rid")


async def test_text_gets_no_second_bos(branching):
    first = await branching.post("/generate", {"text": "ab", "session_params": {"id": "s"}, "sampling_params": {}})
    assert first[1]["meta_info"]["prompt_tokens"] == 3
    body = {"text": "cd", "session_params": {"id": "s", "rid": rid_of(first[1]), "offset": 2}}
    status, second = await branching.post("/generate", body | {"sampling_params": {"max_new_tokens": 4, "seed": 7}})
    assert (status, second["output_ids"]) == (200, continuation([BOS, *b"acd"], 4))


async def test_what_sglangs_clients_send_first_is_a_plain_root(branching):
    answer = await ask(branching, [3], None, offset=-1, replace=True, drop_previous_output=False)
    after = await ask(branching, [4], rid_of(answer), offset=-1, replace=True)
    assert after["output_ids"] == continuation([3, *answer["output_ids"][:-1], 4], 4)


async def test_the_output_can_be_left_out(branching):
    first = await ask(branching, [3, 4])
    again = await ask(branching, [5], rid_of(first), drop_previous_output=True)
    assert again["output_ids"] == continuation([3, 4, 5], 4)


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"rid": "nobody"}, "session_params.rid"),
        ({"rid": ""}, "session_params.rid"),
        ({"rid": "a", "offset": 6}, "session_params.offset"),
        ({"rid": "a", "offset": 1 << 60}, "session_params.offset"),
        ({"rid": "a", "offset": -5}, "session_params.offset"),
        ({"offset": 1}, "session_params.offset"),
        ({"id": "nobody"}, "session_params.id"),
    ],
)
async def test_a_bad_place_is_refused_by_name_and_changes_nothing(branching, params, field):
    await branching.post("/generate", body_of([3]) | {"rid": "a"})
    await branching.post("/generate", body_of([4], "a") | {"rid": "b"})
    body = body_of([5]) | {"session_params": {"id": "s", "replace": True} | params}
    status, answer = await branching.post("/generate", body)
    assert (status, answer["error"]["type"], answer["error"]["field"]) == (400, "invalid_request", field)
    assert (await ask(branching, [6], "b"))["meta_info"]["prompt_tokens"] == 11


@pytest.mark.parametrize("params", [{"rid": 3}, {"offset": 1.5}, {"offset": True}, {"replace": 1}, {"replace": "yes"}])
async def test_bad_values_are_refused(branching, params):
    status, answer = await branching.post("/generate", body_of([3]) | {"session_params": {"id": "s"} | params})
    assert (status, answer["error"]["type"]) == (400, "invalid_request")


async def test_a_batch_cannot_be_part_of_a_session(branching):
    body = body_of([3]) | {"input_ids": [[3], [4]]}
    status, answer = await branching.post("/generate", body)
    assert (status, answer["error"]["field"]) == (400, "session_params")


async def test_too_much_for_the_capacity_is_refused(branching):
    first = await ask(branching, [3] * 90, new=50)
    assert first["meta_info"]["completion_tokens"] == 10
    status, answer = await branching.post("/generate", body_of([4], rid_of(first)))
    assert (status, answer["error"]["type"], answer["error"]["limit"]) == (400, "too_long", 100)


async def test_branches_run_at_once_and_what_replaces_them_aborts_them(branching, gate):
    first = await ask(branching, [3])
    gate.clear()
    turns = [
        await arrived(branching, body_of([4], rid_of(first), new=90)),
        await arrived(branching, body_of([5], rid_of(first), new=90), waiting=1),
        await arrived(branching, body_of([6], rid_of(first), new=90), waiting=2),
        await arrived(branching, body_of([7], rid_of(first), replace=True), waiting=3),
    ]
    gate.set()
    *replaced, last = [await turn for turn in turns]
    assert [(status, body["meta_info"]["finish_reason"]["type"]) for status, body in replaced] == [(200, "abort")] * 3
    assert last[1]["output_ids"] == continuation([3, *first["output_ids"], 7], 4)


async def test_a_replaced_stream_ends(branching, gate):
    gate.clear()
    async with branching.http.post(
        branching.url + "/generate", json=body_of([6], new=90) | {"stream": True}
    ) as streamed:
        replacing = await arrived(branching, body_of([7], replace=True), waiting=1)
        gate.set()
        events = (await streamed.read()).split(b"\n\n")
    assert b'"type":"abort"' in events[-3]
    assert events[-2:] == [b"data: [DONE]", b""]
    assert (await replacing)[0] == 200


async def test_what_is_in_flight_cannot_be_continued(branching, gate):
    gate.clear()
    running = await arrived(branching, body_of([3]) | {"rid": "a"})
    early = await arrived(branching, body_of([4], "a"), waiting=1)
    gate.set()
    status, answer = await early
    assert (status, answer["error"]["field"]) == (400, "session_params.rid")
    assert (await running)[1]["output_ids"] == continuation([3], 4)


async def test_a_client_that_goes_leaves_no_node(branching, gate):
    first = await ask(branching, [3])
    gate.clear()
    gone = await arrived(branching, body_of([4], rid_of(first), new=90) | {"rid": "gone"})
    gone.cancel()
    await until(lambda: branching.engine._mailbox.qsize() == 1)
    gate.set()
    assert (await branching.post("/generate", body_of([5], "gone")))[0] == 400
    assert branching.engine.state.turns["disconnected"] == 1
    assert (await ask(branching, [5], rid_of(first)))["meta_info"]["prompt_tokens"] == 6


async def test_close_waits_for_every_branch(branching, gate):
    gate.clear()
    several = [
        await arrived(branching, body_of([3], new=4)),
        await arrived(branching, body_of([3], new=9), waiting=1),
    ]
    closing = asyncio.create_task(branching.post("/close_session", {"session_id": "s"}))
    await until(lambda: branching.engine._mailbox.qsize() == 2)
    gate.set()
    assert await closing == (200, {"success": True})
    assert [len((await turn)[1]["output_ids"]) for turn in several] == [4, 9]
    assert (await branching.post("/close_session", {"session_id": "s"}))[0] == 404


async def test_a_timeout_closes_an_idle_tree(branching, driver):
    await ask(branching, [3])
    driver.now = 61.0
    await until(lambda: branching.engine.state.native_sessions == 0)
    assert (await branching.post("/generate", body_of([3])))[0] == 400
