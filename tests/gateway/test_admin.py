"""The admin API as the operator uses it."""

from __future__ import annotations

import uuid

import pytest


async def test_a_worker_is_asked_who_it_is(fleet, start_worker):
    stranger = await start_worker()
    body = {"namespace": "default", "fleet": "default", "url": stranger.url}
    status, problem, _ = await fleet.client.call("PUT", "/admin/workers/somebody.else", body)
    assert (status, problem["type"]) == (503, "no_capacity")
    assert "wrong_worker" in problem["detail"]
    dead = {**body, "url": "http://127.0.0.1:1"}
    assert (await fleet.client.call("PUT", "/admin/workers/x.y", dead))[0] == 503
    odd = {**body, "url": "file:///etc/passwd"}
    assert (await fleet.client.call("PUT", "/admin/workers/x.y", odd))[1]["field"] == "url"
    assert (await fleet.client.call("PUT", "/admin/workers/x.y", {**body, "slots": 3}))[1]["field"] == "slots"


async def test_a_fleets_model_is_immutable(fleet, start_worker):
    other = await start_worker(fingerprint="stub-2")
    body = {"namespace": "default", "fleet": "default", "url": other.url}
    status, problem, _ = await fleet.client.call("PUT", f"/admin/workers/{other.id}", body)
    assert (status, problem["type"]) == (409, "conflict")


async def test_workers_tell_their_sessions(fleet, ask):
    await fleet.client.open()
    await fleet.client.turn(**ask())
    workers = {one["id"]: one for one in (await fleet.client.call("GET", "/admin/workers"))[1]}
    assert workers.keys() == {fleet.first.id, fleet.second.id}
    first = (await fleet.client.call("GET", f"/admin/workers/{fleet.first.id}"))[1]
    assert first == workers[fleet.first.id]
    assert (first["idle"], first["running"], first["slots"], first["url"]) == (["a"], [], 16, fleet.first.url)
    fleet_view = (await fleet.client.call("GET", "/admin/fleets/default/default"))[1]
    assert (fleet_view["slots"], fleet_view["resident"], fleet_view["workers"]) == (20, 1, 2)


async def test_a_cordoned_worker_gets_nothing_new(fleet, ask):
    body = {"namespace": "default", "fleet": "default", "url": fleet.first.url, "cordoned": True}
    await fleet.client.call("PUT", f"/admin/workers/{fleet.first.id}", body)
    await fleet.client.open()
    told = await fleet.client.turn(**ask())
    assert told.one("turn.started")["worker"] == fleet.second.id


async def test_a_dead_worker_can_be_cordoned(fleet):
    body = {"namespace": "default", "fleet": "default", "url": fleet.first.url}
    await fleet.first.runner.cleanup()
    for cordoned in (True, False):
        status, view, _ = await fleet.client.call(
            "PUT", f"/admin/workers/{fleet.first.id}", {**body, "cordoned": cordoned}
        )
        assert (status, view["cordoned"]) == (200, cordoned)
        assert (await fleet.client.call("GET", f"/admin/workers/{fleet.first.id}"))[1]["cordoned"] is cordoned


async def test_a_dropped_worker_is_gone(fleet):
    path = f"/admin/workers/{fleet.first.id}"
    assert (await fleet.client.call("DELETE", path))[0] == 204
    assert (await fleet.client.call("GET", path))[0] == 404
    assert (await fleet.client.call("DELETE", path))[0] == 404


@pytest.fixture
def wanted():
    return {"uid": str(uuid.uuid4()), "fleet": "default"}


async def test_a_resources_session(fleet, ask, wanted):
    path = "/admin/sessions/default/r"
    status, view, _ = await fleet.client.call("PUT", path, {**wanted, "bind": True, "max_tokens": 100})
    assert (status, view["origin"], view["uid"], view["state"]) == (201, "cr", wanted["uid"], "resident")
    assert (await fleet.client.call("PUT", path, wanted))[0] == 200
    assert (await fleet.client.call("GET", path))[1]["uid"] == wanted["uid"]
    assert (await fleet.client.turn("r", **ask())).last.name == "turn.committed"
    status, problem, _ = await fleet.client.call("DELETE", "/v1/sessions/default/r")
    assert (status, problem["type"]) == (409, "managed_by_resource")
    page = (await fleet.client.call("GET", "/admin/sessions?namespace=default"))[1]
    assert [one["name"] for one in page["sessions"]] == ["r"]
    assert (await fleet.client.call("DELETE", path))[0] == 204
    assert (await fleet.client.call("GET", path))[0] == 404


async def test_a_resource_that_saw_more_than_the_ledger_has(fleet, ask, wanted):
    path = "/admin/sessions/default/r"
    await fleet.client.call("PUT", path, {**wanted, "head": "a" * 40, "turns": 3})
    told = await fleet.client.turn("r", **ask())
    assert (told.status, told.problem["type"]) == (410, "history_lost")


async def test_a_suspended_session_takes_no_turns(fleet, ask, wanted):
    await fleet.client.call("PUT", "/admin/sessions/default/r", {**wanted, "suspend": True})
    told = await fleet.client.turn("r", **ask())
    assert (told.status, told.problem["type"]) == (409, "managed_by_resource")


async def test_changes_after_a_cursor(fleet, wanted):
    cursor = (await fleet.client.call("GET", "/admin/changes?namespace=default"))[1]["cursor"]
    await fleet.client.call("PUT", "/admin/sessions/default/r", wanted)
    found = (await fleet.client.call("GET", f"/admin/changes?namespace=default&after={cursor}"))[1]
    assert ("session", "r") in {(one["kind"], one["name"]) for one in found["changes"]}
    status, problem, _ = await fleet.client.call("GET", "/admin/changes?after=elsewhere:1")
    assert (status, problem["type"]) == (410, "cursor_gone")


async def test_a_turn_that_lost_two_workers_recovers_once(fleet, ask, start_worker, register):
    """From the first loss to the next word; and from the last word's loss to the end."""
    third = await start_worker(slots=1)
    await register(fleet.client, third)
    await fleet.client.open()
    fleet.first.faults.script, fleet.second.faults.script = ["die@2"], ["die@start"]
    assert (await fleet.client.turn(**ask())).last.name == "turn.committed"
    third.faults.script = ["die@last"]
    await register(fleet.client, await start_worker(slots=1))
    assert (await fleet.client.turn(**ask("again"))).last.name == "turn.committed"
    text = (await fleet.client.call("GET", "/metrics"))[1].decode()
    assert 'berth_gateway_moves_total{reason="connection_lost"} 3.0' in text
    assert 'berth_gateway_recovery_seconds_count{reason="connection_lost"} 2.0' in text


async def test_metrics_have_bounded_labels(fleet, ask):
    await fleet.client.open("secret-name")
    fleet.first.faults.script = ["die@2"]
    await fleet.client.turn("secret-name", **ask())
    text = (await fleet.client.call("GET", "/metrics"))[1].decode()
    assert 'berth_gateway_turns_total{outcome="committed"} 1.0' in text
    assert 'berth_gateway_moves_total{reason="connection_lost"} 1.0' in text
    assert 'berth_gateway_recovery_seconds_count{reason="connection_lost"} 1.0' in text
    assert 'berth_gateway_ledger_seconds_count{operation="commit"} 1.0' in text
    assert "berth_gateway_first_token_seconds_count 1.0" in text
    assert "secret-name" not in text
