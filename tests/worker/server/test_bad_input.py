"""Bad input: a 4xx with a JSON object that names what is wrong; nothing changes and the worker stays healthy."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest

from berth_worker.settings import ServerSettings
from workerkit.fakes import VOCAB

POSTS = ["/generate", "/open_session", "/close_session", "/abort_request", "/berth/stop", "/berth/release"]
DEEP = b'{"a":' * 200_000 + b"1" + b"}" * 200_000
WIRE = {"X-Berth-Wire": "1"}


@pytest.fixture
def server_settings() -> ServerSettings:
    return ServerSettings(body_limit=4 << 20)


async def check(worker, path: str, body: object) -> dict:
    before = worker.engine.state
    status, answer = await worker.post(path, body, headers=WIRE)
    assert 400 <= status < 500, answer
    assert set(answer) == {"error"}
    assert {"type", "message"} <= set(answer["error"])
    assert worker.engine.state == before
    assert (await worker.get("/health"))[0] == 200
    return answer["error"]


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b'"x"',
        b"null",
        b'{"text": NaN}',
        b'{"rid": "\xff\xfe"}',
        b'{"a": 1',
        DEEP,
        b"[" * 100_000,
    ],
    ids=["empty", "broken", "list", "number", "string", "null", "nan", "utf8", "cut", "deep", "deeper"],
)
async def test_broken_bodies(worker, path, body):
    await check(worker, path, body)


@pytest.mark.parametrize(
    "ids",
    [
        [],
        [1.5],
        [1.0],
        [True],
        [-1],
        [VOCAB],
        [1 << 31],
        [1 << 63],
        [1 << 70],
        ["3"],
        [None],
        [[]],
        [[3], 4],
        [[[3]]],
        "3",
        {},
    ],
    ids=str,
)
async def test_ids_that_are_none(worker, ids):
    error = await check(worker, "/generate", {"input_ids": ids})
    assert "input_ids" in error["field"]


@pytest.mark.parametrize(
    ("sampling", "name"),
    [
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 1e300}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": -2}, "top_k"),
        ({"max_new_tokens": -1}, "max_new_tokens"),
        ({"max_new_tokens": 1 << 40}, "max_new_tokens"),
        ({"max_new_tokens": 1.5}, "max_new_tokens"),
        ({"min_new_tokens": 9, "max_new_tokens": 3}, "min_new_tokens"),
        ({"stop": [""]}, "stop"),
        ({"stop": 3}, "stop"),
        ({"stop_token_ids": [VOCAB]}, "stop_token_ids"),
        ({"stop_token_ids": [-1]}, "stop_token_ids"),
        ({"seed": -1}, "seed"),
        ({"sampling_seed": 1 << 70}, "seed"),
        ({"regex": "a+"}, "regex"),
        ({"n": 2}, "n"),
        ({"spaces_between_special_tokens": False}, "spaces_between_special_tokens"),
        ({"tempreature": 1}, "tempreature"),
        ("hot", "sampling_params"),
        ([{}, {}], "sampling_params"),
    ],
    ids=str,
)
async def test_sampling_that_cannot_be(worker, sampling, name):
    error = await check(worker, "/generate", {"input_ids": [3], "sampling_params": sampling})
    assert name in error["message"] or name in error["field"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"text": "a", "input_ids": [3]},
        {"text": []},
        {"text": 3},
        {"text": "a", "stream": "yes"},
        {"text": "a", "rid": ""},
        {"text": "a", "rid": ["x"] * 2},
        {"input_ids": [3], "logprob_start_len": -2, "return_logprob": True},
        {"input_ids": [3], "logprob_start_len": 1, "return_logprob": True},
        {"input_ids": [3], "top_logprobs_num": 21},
        {"input_ids": [3], "session_params": {"id": "nobody"}},
        {"input_ids": [3], "session_params": {}},
        {"input_ids": [3], "session_params": "s"},
    ],
    ids=str,
)
async def test_requests_that_make_no_sense(worker, body):
    await check(worker, "/generate", body)


async def test_text_that_is_no_unicode(worker):
    await check(worker, "/generate", b'{"text": "\\ud800"}')


async def test_too_long_an_input_is_a_400_on_sglangs_routes(worker):
    error = await check(worker, "/generate", {"input_ids": [3] * 201})
    assert (error["type"], error["field"]) == ("too_long", "input_ids")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"capacity_of_str_len": -1},
        {"capacity_of_str_len": 0},
        {"capacity_of_str_len": 1.5},
        {"capacity_of_str_len": True},
        {"capacity_of_str_len": 1 << 80},
        {"capacity_of_str_len": 10, "timeout": 0},
        {"capacity_of_str_len": 10, "timeout": -3},
        {"capacity_of_str_len": 10, "timeout": "soon"},
        {"capacity_of_str_len": 10, "session_id": ""},
        {"capacity_of_str_len": 10, "session_id": 3},
    ],
    ids=str,
)
async def test_sessions_that_cannot_be(worker, body):
    await check(worker, "/open_session", {"streaming": True} | body)


async def test_a_body_that_is_not_encoded_as_it_says(worker):
    headers = {"Content-Encoding": "gzip"}
    status, answer = await worker.post("/generate", b"not gzip", headers=headers)
    assert (status, answer["error"]["field"]) == (400, "body")


async def test_an_abort_of_nothing_in_particular(worker):
    await check(worker, "/abort_request", {})


async def test_a_body_over_the_limit_is_refused_in_json(worker):
    error = await check(worker, "/generate", json.dumps({"text": "a" * (5 << 20)}).encode())
    assert error["type"] == "body_too_large"


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nope", 404), ("GET", "/generate", 405), ("PUT", "/x", 404)]
)
async def test_what_does_not_exist_is_refused_in_json(worker, method, path, status):
    async with worker.http.request(method, worker.url + path, headers={"Accept": "text/html"}) as response:
        assert (response.status, response.content_type) == (status, "application/json")
        assert "error" in await response.json()


async def test_a_taken_rid_is_refused(worker, driver):
    gate, step = threading.Event(), driver.runner.step
    driver.runner.step = lambda batch: (gate.wait(10), step(batch))[1]
    first = worker.http.post(worker.url + "/generate", json={"input_ids": [3], "rid": "x", "stream": True})
    async with first as response:
        second = asyncio.create_task(worker.post("/generate", {"input_ids": [3], "rid": "x"}))
        gate.set()
        await second
        await response.read()
