"""Bad input gets a problem that names the field, and changes nothing."""

from __future__ import annotations

import asyncio
import io
import json
from urllib.parse import urlsplit

import pytest

HUGE = 1 << 80
MANAGED = {"uid": "u", "fleet": "default"}


async def raw(url, path, headers, body):
    """POST with headers as bytes, as no client library sends them; return (status, JSON or None)."""
    data = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1".encode(), b"Host: gateway", b"Connection: close"]
    lines += [b"Content-Length: %d" % len(data)]
    lines += [name.encode() + b": " + value for name, value in headers.items()]
    reader, writer = await asyncio.open_connection(*urlsplit(url).netloc.split(":"))
    writer.write(b"\r\n".join(lines) + b"\r\n\r\n" + data)
    head, _, content = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), json.loads(content) if b"json" in head else None


def sampling(**values):
    return {"input": "a", "sampling": values}


BAD = {
    "nothing to say": ({}, "input"),
    "two inputs": ({"input": "a", "input_ids": [1]}, "input"),
    "empty text": ({"input": ""}, "input"),
    "empty ids": ({"input_ids": []}, "input_ids"),
    "no messages": ({"messages": []}, "messages"),
    "a negative id": ({"input_ids": [1, -1]}, "input_ids[1]"),
    "an id outside the vocabulary": ({"input_ids": [300]}, "input_ids[0]"),
    "a huge id": ({"input_ids": [HUGE]}, "input_ids[0]"),
    "an id beyond any float": ({"input_ids": [5, 10**400]}, "input_ids[1]"),
    "a float id": ({"input_ids": [1.5]}, "input_ids[0]"),
    "a bool id": ({"input_ids": [True]}, "input_ids[0]"),
    "a number for text": ({"input": 5}, "input"),
    "an unknown field": ({"input": "a", "tempreature": 1}, "tempreature"),
    "an unknown sampling field": (sampling(heat=1), "sampling.heat"),
    "too hot": (sampling(temperature=101), "sampling.temperature"),
    "top_k zero": (sampling(top_k=0), "sampling"),
    "a huge limit": (sampling(max_new_tokens=HUGE), "sampling.max_new_tokens"),
    "an unknown role": ({"messages": [{"role": "wizard", "content": "a"}]}, "messages[0].role"),
    "a message without content": ({"messages": [{"role": "user"}]}, "messages[0].content"),
    "a picture": ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
    "an odd policy": ({"input": "a", "on_worker_failure": "pray"}, "on_worker_failure"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_bad_turn_names_its_field(fleet, case, stream):
    body, field = BAD[case]
    await fleet.client.open()
    status, problem, headers = await fleet.client.call(
        "POST", "/v1/sessions/default/a/turns", {**body, "stream": stream}
    )
    assert (status, problem["type"], problem["status"]) == (400, "invalid_request", 400), problem
    assert problem["field"] == field, problem
    assert headers["Content-Type"].startswith("application/problem+json")
    assert (await fleet.client.call("GET", "/v1/sessions/default/a"))[1]["turns"] == 0
    assert not fleet.first.seen


BROKEN = {
    "nothing": b"",
    "half": b'{"input": "he',
    "an array": b"[]",
    "null": b"null",
    "invalid UTF-8": b'{"input": "\xff\xfe"}',
    "a lone surrogate": b'{"input": "\\ud800"}',
    "NaN": b'{"input": "a", "sampling": {"temperature": NaN}}',
    "infinite": b'{"input": "a", "sampling": {"temperature": 1e999}}',
    "deep": b'{"messages": [{"role": "user", "content": [{"a": ' + b"[" * 50_000 + b"]" * 50_000 + b"}]}]}",
    "two values": b'{"input": "a"} {"input": "b"}',
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_broken_body_is_refused(fleet, case):
    await fleet.client.open()
    status, problem, _ = await fleet.client.call("POST", "/v1/sessions/default/a/turns", data=BROKEN[case])
    assert (status, problem["type"]) == (400, "invalid_request"), problem
    assert len(problem["detail"]) > 5


async def test_a_body_over_the_limit_is_413(fleet):
    data = json.dumps({"input": "a" * (2 << 20)}).encode()
    for path in ("/v1/sessions", "/v1/sessions/default/a/turns", "/v1/chat/completions"):
        status, problem, headers = await fleet.client.call("POST", path, data=io.BytesIO(data))
        assert status == 413, problem
        assert "json" in headers["Content-Type"]


async def test_a_chunked_body_over_the_limit_is_413(fleet):
    async def endless():
        for _ in range(64):
            yield b"a" * (1 << 16)

    async with fleet.client.http.post(f"{fleet.client.served.url}/v1/sessions", data=endless()) as answer:
        assert (answer.status, (await answer.json(content_type=None))["type"]) == (413, "too_long")


@pytest.mark.parametrize(
    ("call", "status", "kind"),
    [
        (("GET", "/v1/sessions/default/nobody", None), 404, "no_such_session"),
        (("DELETE", "/v1/sessions/default/nobody", None), 404, "no_such_session"),
        (("GET", "/v1/sessions/default/nobody/history", None), 404, "no_such_session"),
        (("GET", "/v1/sessions/default/nobody/turns/x", None), 404, "no_such_session"),
        (("POST", "/v1/sessions/default/nobody/turns", {"input": "a"}), 404, "no_such_session"),
        (("POST", "/v1/sessions", {"fleet": "nobody"}), 404, "no_such_fleet"),
        (("POST", "/v1/sessions", {"namespace": "nowhere"}), 404, "no_such_fleet"),
        (("POST", "/v1/sessions", {"name": "No Name"}), 400, "invalid_request"),
        (("POST", "/v1/sessions", {"idle_timeout_s": 0}), 400, "invalid_request"),
        (("POST", "/v1/sessions", {"max_tokens": 0}), 400, "invalid_request"),
        (("POST", "/v1/sessions", {"from": {"session": "nobody"}}), 404, "no_such_session"),
        (("POST", "/v1/sessions", {"from": {"session": "nobody", "turn": HUGE}}), 400, "invalid_request"),
        (("PUT", "/admin/sessions/default/a", {**MANAGED, "max_tokens": HUGE}), 400, "invalid_request"),
        (("PUT", "/admin/sessions/default/a", {**MANAGED, "max_tokens": -1}), 400, "invalid_request"),
        (("PUT", "/admin/sessions/default/a", {**MANAGED, "idle_timeout_s": 1e300}), 400, "invalid_request"),
        (("PUT", "/admin/sessions/default/a", {**MANAGED, "hibernate_after_s": -5}), 400, "invalid_request"),
        (("PUT", "/admin/sessions/default/a", {**MANAGED, "turns": HUGE, "head": "x"}), 400, "invalid_request"),
        (("GET", "/v1/sessions/DEFAULT/a", None), 400, "invalid_request"),
        (("GET", "/v1/sessions?limit=0", None), 400, "invalid_request"),
        (("GET", "/v1/sessions?limit=x", None), 400, "invalid_request"),
        (("GET", "/nowhere", None), 404, "not_found"),
        (("PUT", "/v1/sessions", {}), 405, "method_not_allowed"),
        (("PATCH", "/v1/sessions/default/a/turns", {}), 405, "method_not_allowed"),
    ],
)
async def test_what_is_not_there_is_named(fleet, call, status, kind):
    found, problem, headers = await fleet.client.call(*call)
    assert (found, problem["type"], problem["status"]) == (status, kind, status)
    assert headers["Content-Type"].startswith("application/problem+json")


@pytest.mark.parametrize("value", ["", "x y", "a" * 256, "\u00e9"])
async def test_an_odd_idempotency_key(fleet, ask, value):
    await fleet.client.open()
    status, problem, _ = await fleet.client.call("POST", "/v1/sessions/default/a/turns", ask(), Idempotency_Key=value)
    assert (status, problem["field"]) == (400, "Idempotency-Key")


@pytest.mark.parametrize("name", ["If-Match", "Idempotency-Key", "Last-Event-ID"])
async def test_a_header_that_is_no_text_is_refused_by_name(fleet, ask, name):
    await fleet.client.open()
    body = {**ask(), "stream": True}
    status, answer = await raw(fleet.client.served.url, "/v1/sessions/default/a/turns", {name: b'"\xff"'}, body)
    assert (status, answer["type"], answer["field"]) == (400, "invalid_request", name)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
async def test_a_body_that_is_not_encoded_as_it_says_is_refused(fleet, ask, encoding):
    await fleet.client.open()
    headers = {"Content-Encoding": encoding.encode()}
    status, _ = await raw(fleet.client.served.url, "/v1/sessions/default/a/turns", headers, ask())
    assert status == 400


async def test_if_match(fleet, ask):
    await fleet.client.open()
    told = await fleet.client.turn(**ask(), headers={"If-Match": '""'})
    head = told.last.data["head"]
    old = await fleet.client.turn(**ask(), headers={"If-Match": '""'})
    assert (old.status, old.problem["type"], old.problem["head"]) == (409, "head_mismatch", head)
    odd = await fleet.client.turn(**ask(), headers={"If-Match": "unquoted"})
    assert (odd.status, odd.problem["field"]) == (400, "If-Match")
    exposed = (await fleet.client.call("GET", "/metrics"))[1].decode()
    assert 'berth_gateway_refused_total{type="head_mismatch"} 1.0' in exposed
    for tag in (f'"{head}"', "*"):
        assert (await fleet.client.turn(**ask(), headers={"If-Match": tag})).last.name == "turn.committed"


async def test_too_long_for_the_session(fleet, ask):
    await fleet.client.open(max_tokens=10)
    told = await fleet.client.turn(**ask("a" * 20))
    assert (told.status, told.problem["type"], told.problem["limit"]) == (413, "too_long", 10)


async def test_no_worker_is_503_after_the_wait(fleet, ask):
    await fleet.client.open()
    for worker in (fleet.first, fleet.second):
        assert (await fleet.client.call("DELETE", f"/admin/workers/{worker.id}"))[0] == 204
    told = await fleet.client.turn(**ask())
    assert (told.status, told.problem["type"]) == (503, "no_capacity")
    assert int(told.headers["Retry-After"]) >= 1


async def test_a_model_without_a_template_takes_all_but_chat(start_gateway, start_worker, register, ask):
    client = await start_gateway()
    worker = await start_worker(template=None)
    await register(client, worker)
    await client.open()
    refused = await client.turn(messages=[{"role": "user", "content": "hi"}])
    assert (refused.status, refused.problem["field"]) == (400, "messages")
    assert "no chat template" in refused.problem["detail"]
    assert (await client.turn(**ask())).last.name == "turn.committed"
    assert (await client.turn(input_ids=[97], sampling={"max_new_tokens": 2})).last.name == "turn.committed"


async def test_a_crash_of_ours_tells_nothing_of_the_inside(fleet, monkeypatch):
    async def broken(*_):
        raise RuntimeError("secret")

    monkeypatch.setattr(fleet.client.served.gateway.backends.ledger, "session", broken)
    status, problem, _ = await fleet.client.call("GET", "/v1/sessions/default/a")
    assert (status, problem["type"]) == (500, "internal_error")
    assert "secret" not in json.dumps(problem)
