"""A gateway's turns over HTTP: streams, refusals, identity."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from berth_api.wire import TURN_CONTENT_TYPE, Aborted, Finished, FinishReason, ModelInfo, Started, Tokens, WorkerInfo
from workerkit.driver import FINGERPRINT, head_of, pack
from workerkit.fakes import continuation
from workerkit.sse import events
from workerkit.waiting import until

WIRE = {"X-Berth-Wire": "1"}


async def test_a_turn_streams_its_events(worker):
    status, heard = await worker.turn("u", [3, 4])
    assert status == 200
    assert [type(event) for event in heard] == [Started, Tokens, Tokens, Tokens, Tokens, Finished]
    ids = [token for event in heard[1:-1] for token in event.ids]
    assert ids == continuation([3, 4], 4)
    assert heard[-1].head == head_of([3, 4, *ids])


@pytest.mark.parametrize(
    ("options", "status", "kind"),
    [
        ({"epoch": 0}, 409, "stale"),
        ({"epoch": 1}, 409, "duplicate"),
        ({"parent": "beef"}, 409, "history_required"),
        ({"fingerprint": "other"}, 409, "conflict"),
        ({"ids": []}, 400, "invalid_request"),
        ({"ids": [3] * 200}, 413, "too_long"),
    ],
)
async def test_refusals_are_json_with_their_type(worker, options, status, kind):
    await worker.turn("u", [3, 4])
    options = {"ids": [5], "epoch": 2} | options
    got, error = await worker.turn("u", options.pop("ids"), **options)
    assert (got, error["type"]) == (status, kind)
    assert "have" in error or "seen" in error or "field" in error or "fingerprint" in error


@pytest.mark.parametrize("body", [b"", b"\xc1", msgspec.msgpack.encode({"uid": "u"}), msgspec.msgpack.encode([1])])
async def test_a_body_that_is_no_turn_is_a_400(worker, body):
    headers = WIRE | {"Content-Type": TURN_CONTENT_TYPE}
    status, answer = await worker.post("/generate", body, headers=headers)
    assert (status, answer["error"]["type"]) == (400, "invalid_request")


async def test_unknown_members_are_refused_on_berths_own_routes(worker):
    order = {"uid": "u", "turn": "t", "epoch": 1, "attempt": 1, "hurry": True}
    status, body = await worker.post("/berth/stop", order, headers=WIRE)
    assert (status, body["error"]["field"]) == (400, "hurry")


async def test_the_worker_and_the_wire_version_are_checked(worker):
    status, error = await worker.turn("u", [3], headers={"X-Berth-Worker": "another"})
    assert (status, error["type"]) == (421, "wrong_worker")
    assert (await worker.turn("u", [3], headers={"X-Berth-Wire": "2"}))[0] == 400
    status, _ = await worker.post("/berth/stop", {}, headers={"X-Berth-Wire": "9"})
    assert status == 400
    status, body = await worker.post("/berth/release", {"uid": "u", "epoch": 1})
    assert (status, body["error"]["field"]) == (400, "X-Berth-Wire")
    assert (await worker.turn("u", [3], headers={"X-Berth-Worker": "pod.boot"}))[0] == 200


async def test_headers_go_out_at_acceptance_before_any_step_is_done(worker, gate):
    gate.clear()
    async with worker.open_turn("u", [3, 4]) as response:
        assert response.status == 200
        assert worker.engine.state.steps == 0
        gate.set()
        await response.read()


async def test_stop_and_release_by_http(worker, gate):
    gate.clear()
    order = {"uid": "u", "turn": "t", "epoch": 1, "attempt": 1}
    async with worker.open_turn("u", [3, 4], new=190) as response:
        stop = asyncio.create_task(worker.post("/berth/stop", order, headers=WIRE))
        await asyncio.sleep(0)
        gate.set()
        assert await stop == (200, {"found": True})
        rest = [event async for event in events(response)]
    assert rest[-1].finish_reason == FinishReason("stop")
    assert rest[-1].completion_tokens < 190
    assert await worker.post("/berth/stop", order, headers=WIRE) == (200, {"found": False})
    assert await worker.post("/berth/release", {"uid": "u", "epoch": 0}, headers=WIRE) == (200, {"released": False})
    assert await worker.post("/berth/release", {"uid": "u", "epoch": 1}, headers=WIRE) == (200, {"released": True})
    assert (await worker.memory())["session_held"] == 0


async def test_a_newer_attempt_ends_the_olders_stream(worker, gate):
    gate.clear()
    async with worker.open_turn("u", [3, 4], new=150) as older:
        newer = asyncio.create_task(worker.turn("u", [3, 4], attempt=2))
        gate.set()
        status, heard = await newer
        last = [line for line in (await older.read()).splitlines() if line.startswith(b"data: ")][-1]
    assert (status, type(heard[-1])) == (200, Finished)
    assert msgspec.json.decode(last[6:], type=Aborted | Finished) == Aborted(
        "superseded", "a newer attempt at this session arrived"
    )


async def test_a_gateway_that_goes_aborts_its_attempt(worker, gate):
    gate.clear()
    async with worker.open_turn("u", [3, 4], new=150):
        pass
    gate.set()
    await until(lambda: worker.engine.state.turns.get("disconnected") == 1)
    assert (await worker.memory())["session_held"] == 0
    assert (await worker.turn("u", [3, 4], epoch=2))[0] == 200


async def test_history_travels_in_one_request(worker):
    turns = [[3] * 50, [4] * 50]
    status, heard = await worker.turn("u", [5], head_of(*turns), history=[pack(turn) for turn in turns])
    assert status == 200
    assert heard[0] == Started(101, 0)


async def test_info_is_what_the_gateway_reads(worker):
    _, info = await worker.get("/get_server_info")
    berth = msgspec.convert(info["berth"], WorkerInfo)
    assert (berth.id, berth.wire, berth.slots) == ("pod.boot", 1, 4)
    assert info["memory"]["rows"] == {"free": 4, "total": 4}
    _, raw = await worker.get("/berth/model")
    model = msgspec.convert(raw, ModelInfo)
    assert model.fingerprint == FINGERPRINT
    for name in model.files:
        async with worker.http.get(f"{worker.url}/berth/model/files/{name}") as response:
            assert await response.read() == b"{}"
    async with worker.http.get(f"{worker.url}/berth/model/files/..%2Fsecret") as response:
        assert (response.status, response.content_type) == (404, "application/json")
