"""Bad input to the whole fleet: a problem that names the field, a session untouched, a fleet that goes on."""

from __future__ import annotations

import io
import json

import pytest
import pytest_asyncio

from fleetkit.client import greedy
from fleetkit.story import turns, words

pytestmark = pytest.mark.asyncio(loop_scope="session")

GOOD = greedy(words(70, 8), 4)


def sampling(**values) -> dict:
    return {**GOOD, "sampling": values}


BAD_TURNS = {
    "no input at all": ({}, 400),
    "two inputs": ({**GOOD, "input": "hello"}, 400),
    "empty ids": ({**GOOD, "input_ids": []}, 400),
    "empty text": ({"input": ""}, 400),
    "an id below the vocabulary": ({**GOOD, "input_ids": [-1]}, 400),
    "an id above the vocabulary": ({**GOOD, "input_ids": [5, 264]}, 400),
    "a huge id": ({**GOOD, "input_ids": [1 << 70]}, 400),
    "a float id": ({**GOOD, "input_ids": [1.5]}, 400),
    "a bool id": ({**GOOD, "input_ids": [True]}, 400),
    "a string of ids": ({**GOOD, "input_ids": "1 2 3"}, 400),
    "an unknown field": ({**GOOD, "tempreature": 1}, 400),
    "an unknown sampling field": (sampling(heat=1), 400),
    "a negative temperature": (sampling(temperature=-1), 400),
    "top_p zero": (sampling(top_p=0), 400),
    "top_k zero": (sampling(top_k=0), 400),
    "negative max_new_tokens": (sampling(max_new_tokens=-1), 400),
    "a huge max_new_tokens": (sampling(max_new_tokens=1 << 80), 400),
    "too many stop strings": (sampling(stop=["a"] * 33), 400),
    "an unknown role": ({"messages": [{"role": "wizard", "content": "hi"}]}, 400),
    "no messages": ({"messages": []}, 400),
    "an image": ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}, 400),
    "too long": ({**GOOD, "input_ids": [1] * 9000}, 413),
}

BAD_BYTES = {
    "nothing": b"",
    "half a JSON": b'{"input": "he',
    "not an object": b"[1, 2]",
    "invalid UTF-8": b'{"input": "\xff\xfe"}',
    "a lone surrogate": b'{"input": "\\ud800"}',
    "NaN": b'{"input": "a", "sampling": {"temperature": NaN}}',
    "very deep": b'{"input": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
}


@pytest_asyncio.fixture(loop_scope="session")
async def name(client) -> str:
    made: str = (await client.open())["name"]
    assert (await client.turn(made, turns(71)[0])).outcome == "committed"
    return made


async def refused(rig, client, name, reply, status) -> None:
    assert reply.status == status, reply
    assert reply.body["type"]
    assert len(reply.body["detail"]) > 5
    view = await client.session(name)
    assert (view["turns"], view["state"] in {"resident", "hibernated"}) == (1, True)
    assert (await client.call("GET", "/healthz")).status == 200
    for worker in rig.workers:
        async with client.http.get(worker.url + "/health") as answer:
            assert answer.status == 200


@pytest.mark.parametrize("case", BAD_TURNS)
async def test_a_bad_turn_is_refused_and_changes_nothing(rig, client, name, case):
    body, status = BAD_TURNS[case]
    for stream in (False, True):
        await refused(rig, client, name, await client.say(name, {**body, "stream": stream}), status)
    if status == 400:
        reply = await client.say(name, body)
        assert reply.type == "invalid_request"
        assert reply.body.get("field"), f"the field is not named: {reply.body}"


@pytest.mark.parametrize("case", BAD_BYTES)
async def test_a_broken_body_is_refused_and_changes_nothing(rig, client, name, case):
    path = f"/v1/sessions/default/{name}/turns"
    reply = await client.call("POST", path, data=BAD_BYTES[case], headers={"Content-Type": "application/json"})
    await refused(rig, client, name, reply, 400)


async def test_an_endless_body_is_cut_off(rig, client, name):
    body = io.BytesIO(b'{"input": "' + b"a" * (64 << 20) + b'"}')
    path = f"/v1/sessions/default/{name}/turns"
    reply = await client.call("POST", path, data=body, headers={"Content-Type": "application/json"})
    await refused(rig, client, name, reply, 413)


@pytest.mark.parametrize(
    ("call", "status", "kind"),
    [
        (("GET", "/v1/sessions/default/nobody", None), 404, "no_such_session"),
        (("DELETE", "/v1/sessions/default/nobody", None), 404, "no_such_session"),
        (("GET", "/v1/sessions/default/nobody/history", None), 404, "no_such_session"),
        (("POST", "/v1/sessions/default/nobody/turns", GOOD), 404, "no_such_session"),
        (("POST", "/v1/sessions", {"fleet": "nobody"}), 404, "no_such_fleet"),
        (("POST", "/v1/sessions", {"name": "Not A Name"}), 400, "invalid_request"),
        (("POST", "/v1/sessions", {"idle_timeout_s": -1}), 400, "invalid_request"),
        (("POST", "/v1/sessions", {"max_tokens": 0}), 400, "invalid_request"),
        (("POST", "/v1/sessions", {"from": {"session": "nobody"}}), 404, "no_such_session"),
    ],
)
async def test_what_does_not_exist_is_named(client, call, status, kind):
    reply = await client.call(*call)
    assert (reply.status, reply.type) == (status, kind), reply
    assert json.dumps(reply.body)
