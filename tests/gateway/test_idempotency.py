"""The same Idempotency-Key is the same turn, at every gateway and after every death."""

from __future__ import annotations

import asyncio

import pytest

from berth_api import heads
from berth_api.errors import LedgerUnavailable


@pytest.fixture
async def other(fleet, start_gateway):
    assert fleet.client  # first
    """A second gateway on the same ledger."""
    return await start_gateway()


async def test_a_committed_turn_is_told_again_and_not_run_again(fleet, other, ask):
    session = await fleet.client.open()
    key = {"Idempotency-Key": "k1"}
    first = await fleet.client.turn(**ask("hello"), headers=key)
    again = await other.turn(**ask("hello"), headers=key)
    assert again.names == ["turn.started", "token", "turn.committed"]
    assert (again.ids, again.text, again.last.data) == (first.ids, first.text, first.last.data)
    assert first.last.data["turn"] == heads.turn_id(session["uid"], "k1")
    assert len(fleet.first.seen) == 1
    status, view, _ = await other.call("POST", "/v1/sessions/default/a/turns", ask("hello"), Idempotency_Key="k1")
    assert (status, view["state"], view["output_ids"], view["text"]) == (200, "committed", first.ids, first.text)


async def test_another_payload_under_the_key_is_refused(fleet, ask):
    await fleet.client.open()
    await fleet.client.turn(**ask("hello"), headers={"Idempotency-Key": "k"})
    told = await fleet.client.turn(**ask("other"), headers={"Idempotency-Key": "k"})
    assert (told.status, told.problem["type"]) == (422, "idempotency_mismatch")


async def test_how_the_answer_travels_is_no_part_of_the_payload(fleet, ask):
    await fleet.client.open()
    await fleet.client.turn(**ask("hello"), headers={"Idempotency-Key": "k"})
    told = await fleet.client.turn(**ask("hello"), background=True, headers={"Idempotency-Key": "k"})
    assert told.last.name == "turn.committed"


async def test_while_it_runs_the_key_is_in_flight(fleet, other, ask, eventually):
    await fleet.client.open()
    fleet.first.step_s = 0.02
    running = asyncio.create_task(fleet.client.turn(**ask(new=20), headers={"Idempotency-Key": "k"}))
    await eventually(lambda: fleet.first.seen, "the worker to have the turn")
    told = await other.turn(**ask(new=20), headers={"Idempotency-Key": "k"})
    assert (told.status, told.problem["type"]) == (409, "turn_in_flight")
    assert int(told.headers["Retry-After"]) >= 1
    assert (await running).last.name == "turn.committed"


async def test_an_aborted_turn_runs_again_with_the_stored_seed(fleet, ask):
    await fleet.client.open()
    key = {"Idempotency-Key": "k"}
    fleet.first.faults.script = ["abort oops"]
    aborted = await fleet.client.turn(**ask(), headers=key)
    assert aborted.last.name == "turn.aborted"
    again = await fleet.client.turn(**ask(), headers=key)
    assert again.last.name == "turn.committed"
    seeds = {turn.seed for turn in fleet.first.seen}
    assert len(seeds) == 1


@pytest.mark.parametrize("seen", [0, 1, 3, 8])
async def test_a_replay_sends_only_what_is_new(fleet, ask, seen):
    await fleet.client.open()
    key = {"Idempotency-Key": "k"}
    first = await fleet.client.turn(**ask("hello"), headers=key)
    at = first.events[seen]  # the start, or so many tokens behind it
    again = await fleet.client.turn(**ask("hello"), headers={**key, "Last-Event-ID": at.id})
    assert again.ids == first.ids[seen:]
    assert again.text == first.text[seen:]
    assert "turn.restarted" not in again.names
    seqs = [int(event.id.split(":")[1]) for event in again.events]
    assert seqs == sorted(set(seqs))
    assert again.last.data == first.last.data


async def test_a_rerun_sends_only_what_is_new(fleet, ask):
    await fleet.client.open()
    key = {"Idempotency-Key": "k"}
    fleet.first.faults.script = ["die@5"]
    broken = await fleet.client.turn(**ask("hello"), on_worker_failure="abort", headers=key)
    at = [event for event in broken.events if event.name == "token"][3]
    body = {**ask("hello"), "on_worker_failure": "abort"}
    again = await fleet.client.turn(**body, headers={**key, "Last-Event-ID": at.id})
    assert again.last.name == "turn.committed"
    assert broken.ids[:4] + again.ids == [*broken.ids, *again.ids[1:]]
    assert (len(again.ids), len(again.text)) == (4, 4)


async def test_a_rerun_that_differs_says_so_and_starts_over(fleet, ask):
    await fleet.client.open()
    key = {"Idempotency-Key": "k"}
    fleet.first.faults.script = ["die@5"]
    broken = await fleet.client.turn(**ask("hello"), on_worker_failure="abort", headers=key)
    turn, seq, _ = [event for event in broken.events if event.name == "token"][3].id.split(":")
    body = {**ask("hello"), "on_worker_failure": "abort"}
    again = await fleet.client.turn(**body, headers={**key, "Last-Event-ID": f"{turn}:{seq}:00000bad"})
    assert again.names == ["turn.started", "turn.restarted", "token", "turn.committed"]
    assert len(again.ids) == 8
    seqs = [int(event.id.split(":")[1]) for event in again.events]
    assert seqs == sorted(set(seqs))


async def test_a_rerun_shorter_than_what_was_seen_starts_over(fleet, ask):
    await fleet.client.open()
    key = {"Idempotency-Key": "k"}
    first = await fleet.client.turn(**ask("hello", new=3), headers=key)
    turn = first.last.data["turn"]
    again = await fleet.client.turn(
        **ask("hello", new=3), headers={**key, "Last-Event-ID": f"{turn}:{9 * 10**10}:00000bad"}
    )
    assert again.names == ["turn.started", "turn.restarted", "token", "turn.committed"]
    assert again.ids == first.ids


@pytest.mark.parametrize("header", ["nonsense", "a:b:c", "t:1:zzzzzzzz", "other-turn:10000000000:00000000"])
async def test_a_last_event_id_of_something_else_is_refused(fleet, ask, header):
    await fleet.client.open()
    told = await fleet.client.turn(**ask(), headers={"Idempotency-Key": "k", "Last-Event-ID": header})
    assert (told.status, told.problem["type"], told.problem["field"]) == (400, "invalid_request", "Last-Event-ID")
    assert (await fleet.client.call("GET", "/v1/sessions/default/a"))[1]["turns"] == 0
    assert (await fleet.client.turn(**ask(), headers={"Idempotency-Key": "k"})).last.name == "turn.committed"


async def test_a_rerun_beside_its_own_ending_is_still_known_here(fleet, ask, monkeypatch, eventually):
    """The lease of a turn went by while the ledger was away for it alone; the same key runs again at this gateway."""
    await fleet.client.open()
    gateway, body, key = fleet.client.served.gateway, ask(new=2000), {"Idempotency-Key": "k"}
    fleet.first.step_s, aborting, let_go = 0.01, asyncio.Event(), asyncio.Event()
    abort = gateway.backends.ledger.abort

    async def away(*_args, **_kwargs):
        raise LedgerUnavailable("away")

    async def late(*args, **kwargs):
        aborting.set()
        await let_go.wait()
        return await abort(*args, **kwargs)

    monkeypatch.setattr(gateway.backends.ledger, "renew", away)
    monkeypatch.setattr(gateway.backends.ledger, "abort", late)
    old = asyncio.create_task(fleet.client.turn(**body, headers=key))
    await asyncio.wait_for(aborting.wait(), 20)
    monkeypatch.undo()
    tasks = []

    async def again():
        if not tasks or (tasks[-1].done() and tasks[-1].result().status == 409):
            tasks.append(asyncio.create_task(fleet.client.turn(**body, headers=key)))
        return len(fleet.first.seen) > 1 and fleet.first.running

    await eventually(again, "the rerun to run")
    let_go.set()
    assert (await old).last.name in {"turn.aborted", "turn.unknown"}
    await gateway.keeper.drain(0)
    assert (await tasks[-1]).last.data["reason"] == "gateway_shutdown"
