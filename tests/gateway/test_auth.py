"""Keys belong to namespaces; the file may change under a running gateway."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace

import pytest

from berth_api.errors import Unauthorized
from berth_gateway.auth import KeyRing, require_token
from berth_gateway.settings import AuthSettings


def key_file(path, **keys):
    """Write a file of keys: name -> namespaces; the key of NAME is `sk-NAME`."""
    entries = [
        {"sha256": hashlib.sha256(f"sk-{name}".encode()).hexdigest(), "name": name, "namespaces": namespaces}
        for name, namespaces in keys.items()
    ]
    path.write_text(json.dumps({"keys": entries}))
    return path


def bearer(name):
    return {"Authorization": f"Bearer sk-{name}"}


@pytest.fixture
async def guarded(tmp_path, fast, start_gateway, start_worker):
    path = key_file(tmp_path / "keys.json", alice=["default"], bob=["team"], root=["*"])
    client = await start_gateway(replace(fast, auth=AuthSettings(path, admin_token="adm", worker_token="wrk")))
    worker = await start_worker(token="wrk")
    for namespace in ("default", "team"):
        body = {"namespace": namespace, "fleet": "default", "url": worker.url}
        status, answer, _ = await client.call("PUT", f"/admin/workers/{worker.id}", body, Authorization="Bearer adm")
        assert status == 200, answer
    return client, path


async def test_without_a_key_nothing_but_probes(guarded):
    client, _ = guarded
    for headers in ({}, {"Authorization": "Bearer sk-eve"}, {"Authorization": "Basic sk-alice"}):
        status, problem, answer = await client.call("GET", "/v1/sessions", **headers)
        assert (status, problem["type"], answer["WWW-Authenticate"]) == (401, "unauthorized", "Bearer")
    for path in ("/healthz", "/readyz", "/metrics"):
        assert (await client.call("GET", path))[0] == 200
    status, body, _ = await client.call("POST", "/v1/chat/completions", {"model": "default", "messages": []})
    assert (status, body["error"]["type"]) == (401, "authentication_error")


async def test_a_key_works_in_its_namespaces_alone(guarded, ask):
    client, _ = guarded
    made = {"name": "a", "namespace": "default"}
    assert (await client.call("POST", "/v1/sessions", made, **bearer("alice")))[0] == 201
    for method, path in (
        ("GET", "/v1/sessions/default/a"),
        ("DELETE", "/v1/sessions/default/a"),
        ("GET", "/v1/sessions/default/a/history"),
        ("POST", "/v1/sessions/default/a/turns"),
        ("GET", "/v1/sessions?namespace=default"),
    ):
        status, problem, _ = await client.call(method, path, **bearer("bob"))
        assert (status, problem["type"]) == (403, "forbidden"), path
    assert (await client.call("POST", "/v1/sessions", made, **bearer("bob")))[0] == 403
    assert (await client.call("GET", "/v1/sessions/default/a", **bearer("root")))[0] == 200
    status, view, _ = await client.call("POST", "/v1/sessions/default/a/turns", ask(), **bearer("alice"))
    assert (status, view["state"]) == (200, "committed")


async def test_a_listing_shows_the_keys_own(guarded):
    client, _ = guarded
    for namespace in ("default", "team"):
        for name in ("x", "y"):
            await client.call("POST", "/v1/sessions", {"name": name, "namespace": namespace}, **bearer("root"))

    async def listed(name, query=""):
        return (await client.call("GET", f"/v1/sessions{query}", **bearer(name)))[1]

    assert [one["endpoint"] for one in (await listed("bob"))["sessions"]] == [
        "/v1/sessions/team/x",
        "/v1/sessions/team/y",
    ]
    page, seen = await listed("root", "?limit=1"), []
    while True:
        seen += [(one["namespace"], one["name"]) for one in page["sessions"]]
        if page["next"] is None:
            break
        page = await listed("root", f"?limit=1&after={page['next']}")
    assert seen == [("default", "x"), ("default", "y"), ("team", "x"), ("team", "y")]


async def test_the_file_is_read_again_when_it_changes(guarded):
    client, path = guarded
    key_file(path, carol=["default"])
    os.utime(path, ns=(1, 1))
    assert (await client.call("GET", "/v1/sessions", **bearer("carol")))[0] == 200
    assert (await client.call("GET", "/v1/sessions", **bearer("alice")))[0] == 401
    path.write_text("{ broken")
    assert (await client.call("GET", "/v1/sessions", **bearer("carol")))[0] == 200


async def test_the_admin_port_wants_its_own_token(guarded):
    client, _ = guarded
    for headers in ({}, bearer("root"), {"Authorization": "Bearer adm2"}):
        assert (await client.call("GET", "/admin/workers", **headers))[0] == 401
    assert (await client.call("GET", "/admin/workers", Authorization="Bearer adm"))[0] == 200


def test_a_file_that_cannot_be_read_stops_the_start(tmp_path):
    (tmp_path / "bad.json").write_text('{"keys": [{"sha256": "short", "name": "x", "namespaces": ["a"]}]}')
    with pytest.raises(ValueError):
        KeyRing(tmp_path / "bad.json")
    with pytest.raises(OSError):
        KeyRing(tmp_path / "absent.json")


def test_a_key_that_is_no_text_is_not_known(tmp_path):
    """aiohttp hands on a header's stray bytes as surrogates."""
    odd = b"Bearer \xff".decode("utf-8", "surrogateescape")
    with pytest.raises(Unauthorized):
        KeyRing(key_file(tmp_path / "k", a=["default"])).authenticate(odd)
    with pytest.raises(Unauthorized):
        require_token(odd, "adm")


def test_open_only_without_a_file(tmp_path):
    assert KeyRing(None).authenticate(None).allows("anything")
    with pytest.raises(Unauthorized):
        KeyRing(key_file(tmp_path / "k", a=["default"])).authenticate(None)
