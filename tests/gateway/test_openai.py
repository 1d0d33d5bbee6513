"""OpenAI's own client against the gateway."""

from __future__ import annotations

import openai
import pytest


@pytest.fixture
async def ai(fleet):
    async with openai.AsyncOpenAI(base_url=f"{fleet.client.served.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def said(text: str):
    return [{"role": "user", "content": text}]


async def test_models_are_the_fleets(ai):
    assert [model.id async for model in ai.models.list()] == ["default"]


async def test_one_answer(ai, fleet, eventually):
    answer = await ai.chat.completions.create(model="default", messages=said("hi"), max_tokens=6, seed=3)
    choice = answer.choices[0]
    assert (len(choice.message.content), choice.finish_reason) == (6, "length")
    prompt = len("hi") + 4  # bos, user, end, assistant
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (
        prompt, 6, prompt + 6,
    )  # fmt: skip

    async def closed():
        return (await fleet.client.call("GET", "/v1/sessions"))[1]["sessions"] == []

    await eventually(closed, "the one-off session to be closed")


async def test_a_model_is_known_by_its_own_name_too(ai):
    named = [await ai.chat.completions.create(model=m, messages=said("hi"), seed=3) for m in ("default", "stub")]
    assert [answer.model for answer in named] == ["default", "stub"]
    assert named[0].choices[0].message.content == named[1].choices[0].message.content


async def test_a_stream_says_the_same(ai):
    whole = await ai.chat.completions.create(model="default", messages=said("hi"), max_tokens=6, seed=3)
    stream = await ai.chat.completions.create(
        model="default", messages=said("hi"), max_tokens=6, seed=3, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert chunks[-1].usage.completion_tokens == 6
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}


async def test_stop_strings_and_logprobs(ai):
    plain = await ai.chat.completions.create(model="default", messages=said("hi"), max_tokens=20, seed=3)
    stop = plain.choices[0].message.content[4]
    answer = await ai.chat.completions.create(
        model="default", messages=said("hi"), max_tokens=20, seed=3, stop=[stop], logprobs=True, top_logprobs=2
    )
    assert answer.choices[0].finish_reason == "stop"
    content = answer.choices[0].logprobs.content
    assert [one.token for one in content][-1] == stop
    assert [len(one.top_logprobs) for one in content] == [2] * len(content)
    assert content[0].bytes == [ord(content[0].token)]


async def test_a_session_by_header_remembers(ai, fleet):
    headers = {"X-Session-ID": "talk"}
    for text in ("one", "two"):
        await ai.chat.completions.create(model="default", messages=said(text), max_tokens=4, extra_headers=headers)
    view = (await fleet.client.call("GET", "/v1/sessions/default/talk"))[1]
    assert (view["turns"], view["origin"]) == (2, "http")
    first, second = fleet.first.seen
    assert first.input_ids != second.input_ids
    assert len(second.input_ids) < len(first.input_ids) + 8  # the delta, not the conversation
    qualified = {"X-Session-ID": "default/talk"}
    await ai.chat.completions.create(model="default", messages=said("x"), max_tokens=1, extra_headers=qualified)
    assert (await fleet.client.call("GET", "/v1/sessions/default/talk"))[1]["turns"] == 3


async def test_a_worker_dies_and_the_answer_is_whole(ai, fleet):
    plain = await ai.chat.completions.create(model="default", messages=said("hi"), max_tokens=8, seed=3)
    fleet.first.faults.script = ["die@4"]
    stream = await ai.chat.completions.create(model="default", messages=said("hi"), max_tokens=8, seed=3, stream=True)
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == plain.choices[0].message.content
    assert fleet.second.seen


@pytest.mark.parametrize(
    ("change", "error", "param"),
    [
        ({"model": "nobody"}, openai.NotFoundError, "model"),
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"temperature": -1}, openai.BadRequestError, "temperature"),
        ({"max_tokens": -1}, openai.BadRequestError, "max_tokens"),
        ({"n": 2}, openai.BadRequestError, "n"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, openai.BadRequestError, "tools"),
        ({"extra_headers": {"X-Session-ID": "No Name"}}, openai.BadRequestError, "X-Session-ID"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, openai.BadRequestError, "messages[0].role"),
    ],
)
async def test_refusals_have_openais_shape(ai, fleet, change, error, param):
    with pytest.raises(error) as caught:
        await ai.chat.completions.create(**{"model": "default", "messages": said("hi"), **change})
    assert caught.value.param == param
    assert not fleet.first.seen


async def test_unknown_fields_of_its_clients_are_ignored(ai):
    answer = await ai.chat.completions.create(
        model="default", messages=said("hi"), max_tokens=2, user="u", store=False, extra_body={"top_k": 5, "what": 1}
    )
    assert len(answer.choices[0].message.content) == 2


async def test_an_aborted_turn_is_an_error(ai, fleet):
    fleet.first.faults.script = ["abort oops"] * 2
    with pytest.raises(openai.InternalServerError):
        await ai.chat.completions.create(model="default", messages=said("hi"), max_tokens=2)
    stream = await ai.chat.completions.create(model="default", messages=said("hi"), max_tokens=2, stream=True)
    with pytest.raises(openai.APIError, match="oops"):
        await anext(chunk async for chunk in stream if chunk.choices and chunk.choices[0].finish_reason)


async def test_a_one_off_that_cannot_begin_leaves_no_session(start_gateway, start_worker, register, eventually):
    client = await start_gateway()
    worker = await start_worker()
    await register(client, worker)
    await worker.runner.cleanup()
    chat = {"model": "default", "messages": said("hi")}
    status, body, _ = await client.call("POST", "/v1/chat/completions", chat)
    assert (status, body["error"]["code"]) == (503, "no_capacity")

    async def closed():
        return (await client.call("GET", "/v1/sessions"))[1]["sessions"] == []

    await eventually(closed, "the one-off session to be closed")


async def test_a_turn_that_came_to_nothing_is_no_fault_of_the_request(fleet):
    fleet.first.faults.script = ["abort disconnected"]
    chat = {"model": "default", "messages": said("hi")}
    status, body, _ = await fleet.client.call("POST", "/v1/chat/completions", chat)
    assert (status, body["error"]["code"]) == (503, "turn_failed")
