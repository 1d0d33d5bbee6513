"""Sessions as their resources want them: the operator's own client against a gateway, idle and in mid-turn."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis.asyncio

from berth_api.admin import SessionPut, WorkerFound
from berth_operator.admin_client import AdminClient
from berth_operator.errors import AdminRefused, AdminUnavailable, CursorGone


@pytest.fixture
def admin(fleet) -> AdminClient:
    return AdminClient(lambda: [fleet.client.served.admin_url], "", fleet.client.http, timeout_s=10.0)


def wanted(uid: str | None = None, **more) -> SessionPut:
    return SessionPut(uid or str(uuid.uuid4()), "default", **more)


@pytest.fixture
def mid_turn(fleet, ask, eventually):
    """Let a turn of session `r` run on the first worker while the block does; it goes on quickly afterwards."""

    @asynccontextmanager
    async def run() -> AsyncIterator[asyncio.Task]:
        fleet.first.step_s = 0.02
        turn = asyncio.create_task(fleet.client.turn("r", **ask(new=200)))
        await eventually(lambda: fleet.first.running, "the turn to reach its worker")
        yield turn
        fleet.first.step_s = 0.0
        await turn

    return run


async def released(worker, uid: str, eventually) -> None:
    await eventually(lambda: uid in {order.uid for order in worker.released}, "the release")


# The old one of that name ----------------------------------------------------------------------------------------


async def test_another_uid_ends_the_old_ones_turn_at_once(fleet, admin, mid_turn, eventually):
    old, new = wanted(), wanted(bind=True)
    await admin.put_session("default", "r", old)
    async with mid_turn() as turn:
        session = await admin.put_session("default", "r", new)
        assert (session.uid, session.state, session.turns) == (new.uid, "resident", 0)
        await turn  # at its pace it would take seconds more
        assert len(turn.result().ids) < 200
    end = turn.result().last
    assert (end.name, end.data["reason"], end.data["retry_safe"]) == ("turn.aborted", "session_replaced", False)
    await released(fleet.first, old.uid, eventually)
    assert (await admin.session("default", "r")).turns == 0
    with pytest.raises(AdminRefused) as refusal:
        await admin.put_session("default", "r", old)
    assert (refusal.value.type, refusal.value.members["reason"]) == ("session_closing", "replaced")


async def test_another_uid_comes_while_the_old_ones_turn_commits(fleet, admin, ask, monkeypatch):
    """The turn is whole, its commit on the way when its session is replaced: it never happened, and is told so."""
    old, new = wanted(), wanted()
    await admin.put_session("default", "r", old)
    ledger = fleet.client.served.gateway.backends.ledger
    commit = ledger.commit

    async def late(*args, **more):
        await admin.put_session("default", "r", new)
        return await commit(*args, **more)

    monkeypatch.setattr(ledger, "commit", late)
    told = await fleet.client.turn("r", **ask())
    assert (told.last.name, told.last.data["reason"]) == ("turn.aborted", "session_replaced")
    assert (await admin.session("default", "r")).turns == 0


async def test_a_name_that_a_client_has_is_refused(fleet, admin):
    await fleet.client.open("r")
    with pytest.raises(AdminRefused) as refusal:
        await admin.put_session("default", "r", wanted())
    assert (refusal.value.type, refusal.value.status) == ("session_exists", 409)
    assert refusal.value.members["origin"] == "http"


async def test_a_session_that_idled_out_says_so_for_good(admin, eventually):
    resource = wanted(idle_timeout_s=0.05)
    await admin.put_session("default", "r", resource)

    async def gone():
        return not await admin.sessions("default")

    await eventually(gone, "the reaper")
    for _ in range(2):
        with pytest.raises(AdminRefused) as refusal:
            await admin.put_session("default", "r", resource)
        assert refusal.value.type == "session_closing"
        assert (refusal.value.members["reason"], refusal.value.members["closed"]) == ("idle_timeout", True)


async def test_a_flushed_ledger_is_history_lost(fleet, admin, ask, register, redis_url):
    resource = wanted()
    await admin.put_session("default", "r", resource)
    await fleet.client.turn("r", **ask())
    seen = await admin.session("default", "r")
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await client.flushdb()
    with pytest.raises(AdminRefused) as refusal:
        await admin.put_session("default", "r", resource)
    assert refusal.value.type == "no_such_fleet"
    await register(fleet.client, fleet.first)
    again = await admin.put_session("default", "r", wanted(resource.uid, head=seen.head, turns=seen.turns, bind=True))
    assert (again.lost, again.worker) == (True, None)
    refused = await fleet.client.turn("r", **ask())
    assert (refused.status, refused.problem["type"]) == (410, "history_lost")


# Slots -----------------------------------------------------------------------------------------------------------


async def test_binding_takes_free_slots_only(start_gateway, start_worker, register):
    client = await start_gateway()
    await register(client, await start_worker(slots=1))
    admin = AdminClient(lambda: [client.served.admin_url], "", client.http, timeout_s=10.0)
    first = await admin.put_session("default", "first", wanted(bind=True))
    second = await admin.put_session("default", "second", wanted(bind=True))
    assert (first.state, second.state) == ("resident", "hibernated")
    assert (await admin.session("default", "first")).state == "resident"


async def test_suspending_takes_the_slot_and_resuming_with_bind_gives_one_back(fleet, admin, eventually):
    resource = wanted(bind=True)
    await admin.put_session("default", "r", resource)
    suspended = await admin.put_session("default", "r", wanted(resource.uid, suspend=True))
    assert (suspended.suspended, suspended.worker) == (True, None)
    await released(fleet.first, resource.uid, eventually)
    resumed = await admin.put_session("default", "r", resource)
    assert (resumed.suspended, resumed.worker, resumed.recoveries) == (False, fleet.first.id, 0)


async def test_a_turn_that_runs_when_its_session_is_suspended_ends_well_and_gives_the_slot_up(
    fleet, admin, ask, mid_turn, eventually
):
    resource = wanted(bind=True)
    await admin.put_session("default", "r", resource)
    async with mid_turn() as turn:
        suspended = await admin.put_session("default", "r", wanted(resource.uid, suspend=True))
        assert (suspended.state, suspended.suspended) == ("running", True)
    assert turn.result().last.name == "turn.committed"
    after = await admin.session("default", "r")
    assert (after.state, after.worker, after.turns) == ("hibernated", None, 1)
    await released(fleet.first, resource.uid, eventually)
    refused = await fleet.client.turn("r", **ask())
    assert (refused.status, refused.problem["type"]) == (409, "managed_by_resource")


# The resource goes -----------------------------------------------------------------------------------------------


async def test_closing_in_a_turn_waits_for_its_end(admin, mid_turn):
    resource = wanted()
    await admin.put_session("default", "r", resource)
    async with mid_turn() as turn:
        assert not await admin.close_session("default", "r", "somebody-else")
        assert await admin.close_session("default", "r", resource.uid)
        assert (await admin.session("default", "r")).closing == "deleted"
    assert turn.result().last.name == "turn.committed"
    assert await admin.sessions("default") == []
    assert not await admin.close_session("default", "r", resource.uid)


async def test_retained_it_is_a_clients_session(fleet, admin, ask):
    resource = wanted(deletion_policy="Retain")
    await admin.put_session("default", "r", resource)
    await fleet.client.turn("r", **ask())
    for _ in range(2):
        assert not await admin.close_session("default", "r", resource.uid)
    assert await admin.sessions("default", origin="cr") == []
    (kept,) = await admin.sessions("default", origin="http")
    assert (kept.uid, kept.turns, kept.deletion_policy) == (resource.uid, 1, "Retain")
    assert (await fleet.client.turn("r", **ask())).last.name == "turn.committed"
    assert (await fleet.client.call("DELETE", "/v1/sessions/default/r"))[0] == 204


# Many --------------------------------------------------------------------------------------------------------------


async def test_sessions_are_listed_by_origin_over_many_pages(fleet, admin):
    for number in range(3):
        await fleet.client.open(f"http-{number}")
        await admin.put_session("default", f"cr-{number}", wanted())
    assert [one.name for one in await admin.sessions("default", origin="http")] == ["http-0", "http-1", "http-2"]
    assert len(await admin.sessions("default")) == 6
    page = (await fleet.client.call("GET", "/admin/sessions?origin=http&limit=2"))[1]
    assert (page["sessions"], page["next"]) == ([], "cr-1")
    status, problem, _ = await fleet.client.call("GET", "/admin/sessions?origin=me")
    assert (status, problem["field"]) == (400, "origin")


async def test_put_again_changes_nothing(admin):
    resource = wanted(bind=True, max_tokens=100, idle_timeout_s=60, hibernate_after_s=30, on_worker_failure="abort")
    first = await admin.put_session("default", "r", resource)
    assert (first.max_tokens, first.idle_timeout_s, first.hibernate_after_s) == (100, 60, 30)
    assert first.on_worker_failure == "abort"
    start = (await admin.changes("default")).cursor
    answers = await asyncio.gather(*(admin.put_session("default", "r", resource) for _ in range(8)))
    assert set(answers) == {first}
    assert (await admin.changes("default", start)).changes == []


async def test_a_cursor_of_nowhere_is_gone(admin):
    with pytest.raises(CursorGone):
        await admin.changes("default", "elsewhere:1")


# Workers ---------------------------------------------------------------------------------------------------------


async def test_a_worker_is_found_by_its_pod(admin, start_worker):
    worker = await start_worker(id="pod-7.boot-1", slots=3)
    found = await admin.register_worker(WorkerFound("pod-7", "team", "chat", f"{worker.url}/"))
    assert (found.id, found.fleet, found.url, found.slots) == ("pod-7.boot-1", "chat", worker.url, 3)
    assert not found.cordoned
    assert await admin.namespaces() == ["default", "team"]
    assert (await admin.fleet("team", "chat")).free == 3
    cordoned = await admin.register_worker(WorkerFound("pod-7", "team", "chat", worker.url, cordoned=True))
    assert (cordoned.id, cordoned.cordoned) == ("pod-7.boot-1", True)


async def test_a_worker_of_another_pod_is_refused(admin, start_worker):
    worker = await start_worker(id="pod-77.boot-1")
    with pytest.raises(AdminRefused, match=r"pod-77\.boot-1") as refusal:
        await admin.register_worker(WorkerFound("pod-7", "default", "default", worker.url))
    assert (refusal.value.status, refusal.value.members["field"]) == (400, "url")
    assert "pod-77.boot-1" not in {one.id for one in await admin.workers()}


async def test_a_worker_that_is_not_up_cannot_be_registered_yet(admin):
    with pytest.raises(AdminUnavailable, match="cannot be asked"):
        await admin.register_worker(WorkerFound("pod-7", "default", "default", "http://127.0.0.1:1"))


async def test_an_address_that_is_none_is_refused(admin):
    with pytest.raises(AdminRefused) as refusal:
        await admin.register_worker(WorkerFound("pod-7", "default", "default", "file:///etc/passwd"))
    assert refusal.value.members["field"] == "url"
