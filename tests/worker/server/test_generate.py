"""SGLang's /generate: one prompt or several, streamed or not, and the answer's shape."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise

import pytest

from workerkit.fakes import BOS, continuation


async def stream(worker, body):
    """POST a streaming request; return the chunks' data, decoded but for the last."""
    async with worker.http.post(worker.url + "/generate", json=body) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        lines = [line[6:].strip() async for line in response.content if line.startswith(b"data: ")]
    assert lines[-1] == b"[DONE]"
    return [json.loads(line) for line in lines[:-1]]


async def test_ids_in_ids_out(worker):
    status, body = await worker.post(
        "/generate",
        {"input_ids": [3, 4, 5], "sampling_params": {"max_new_tokens": 4, "sampling_seed": 7}, "rid": "mine"},
    )
    assert status == 200
    expected = continuation([3, 4, 5], 4)
    assert body["output_ids"] == expected
    assert body["text"] == "".join(map(chr, expected))
    meta = body["meta_info"]
    assert meta.pop("e2e_latency") > 0
    assert meta == {
        "id": "mine",
        "finish_reason": {"type": "length", "length": 4},
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "cached_tokens": 0,
    }


async def test_text_gets_its_bos(worker):
    _, body = await worker.post("/generate", {"text": "ab", "sampling_params": {"max_new_tokens": 2, "seed": 7}})
    assert body["output_ids"] == continuation([BOS, ord("a"), ord("b")], 2)


async def test_a_stream_is_cumulative_and_ends_with_done(worker):
    chunks = await stream(
        worker, {"input_ids": [3], "stream": True, "sampling_params": {"max_new_tokens": 5, "seed": 7}}
    )
    expected = continuation([3], 5)
    for earlier, later in pairwise(chunks):
        assert later["output_ids"][: len(earlier["output_ids"])] == earlier["output_ids"]
        assert later["text"].startswith(earlier["text"])
        assert earlier["meta_info"]["finish_reason"] is None
    assert chunks[-1]["output_ids"] == expected
    assert chunks[-1]["meta_info"]["finish_reason"]["type"] == "length"


@pytest.mark.parametrize("key", ["input_ids", "text"])
async def test_a_batch_is_answered_by_a_list_in_order(worker, key):
    prompts = [[65], [66, 67]] if key == "input_ids" else ["A", "BC"]
    body = {key: prompts, "sampling_params": [{"max_new_tokens": 2, "seed": 7}, {"max_new_tokens": 3, "seed": 7}]}
    status, answers = await worker.post("/generate", body | {"rid": ["x", "y"]})
    assert status == 200
    start = [] if key == "input_ids" else [BOS]
    assert answers[0]["output_ids"] == continuation([*start, 65], 2)
    assert answers[1]["output_ids"] == continuation([*start, 66, 67], 3)
    assert [answer["meta_info"]["id"] for answer in answers] == ["x", "y"]
    chunks = await stream(worker, body | {"stream": True})
    assert {chunk["index"] for chunk in chunks} == {0, 1}


async def test_logprobs_are_lists_of_logprob_id_text(worker):
    sampling = {"max_new_tokens": 2, "seed": 7}
    body = {"input_ids": [65, 66, 67], "sampling_params": sampling, "return_logprob": True}
    _, answer = await worker.post("/generate", body)
    meta, ids = answer["meta_info"], answer["output_ids"]
    assert [entry[1:] for entry in meta["output_token_logprobs"]] == [[ids[0], None], [ids[1], None]]
    assert meta["input_token_logprobs"] == []
    _, answer = await worker.post(
        "/generate", body | {"logprob_start_len": 0, "top_logprobs_num": 1, "return_text_in_logprobs": True}
    )
    meta = answer["meta_info"]
    assert meta["input_token_logprobs"] == [[None, 65, "A"], [-1.0, 66, "B"], [-2.0, 67, "C"]]
    assert meta["input_top_logprobs"] == [None, [[-1.0, 66, "B"]], [[-2.0, 67, "C"]]]
    assert [len(top) for top in meta["output_top_logprobs"]] == [1, 1]


@pytest.mark.parametrize(
    "sampling",
    [
        {"n": 1, "json_schema": None, "spaces_between_special_tokens": True, "custom_params": {}},
        {"max_new_tokens": 1, "no_stop_trim": True, "skip_special_tokens": False, "ignore_eos": True},
        {"stop": ["x", "y"], "stop_token_ids": [5], "min_new_tokens": 1, "top_k": -1, "min_p": 0.1},
    ],
)
async def test_sglangs_sampling_fields_are_taken(worker, sampling):
    assert (await worker.post("/generate", {"input_ids": [3], "sampling_params": sampling}))[0] == 200


async def test_no_bound_on_the_answer_means_what_fits(worker):
    _, body = await worker.post("/generate", {"input_ids": [3] * 150, "sampling_params": {"max_new_tokens": None}})
    assert body["meta_info"]["completion_tokens"] == 50


async def test_unknown_members_are_ignored(worker):
    assert (await worker.post("/generate", {"input_ids": [3], "lora_path": "x", "bootstrap_room": 3}))[0] == 200


async def test_an_aborted_call_still_answers(worker, gate):
    gate.clear()
    hold = worker.http.post(
        worker.url + "/generate",
        json={"input_ids": [3], "rid": "x", "stream": True, "sampling_params": {"max_new_tokens": 190}},
    )
    async with hold as response:
        abort = asyncio.create_task(worker.post("/abort_request", {"rid": "x"}))
        await asyncio.sleep(0)
        gate.set()
        assert (await abort)[0] == 200
        lines = [line[6:].strip() async for line in response.content if line.startswith(b"data: ")]
    assert lines[-1] == b"[DONE]"
    reason = json.loads(lines[-2])["meta_info"]["finish_reason"]
    assert reason == {"type": "abort", "message": "aborted by request"}


async def test_a_step_that_fails_is_a_500_and_the_next_one_is_not(worker, driver):
    driver.runner.fail = RuntimeError("no such kernel")
    status, body = await worker.post("/generate", {"input_ids": [3]})
    assert status == 500
    assert "no such kernel" in body["error"]["message"]
    driver.runner.fail = None
    assert (await worker.post("/generate", {"input_ids": [3]}))[0] == 200
    assert (await worker.get("/health"))[0] == 200
