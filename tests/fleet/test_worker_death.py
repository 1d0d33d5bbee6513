"""A worker dies at every moment of a turn that matters: the client reads on as if nothing had been."""

from __future__ import annotations

import asyncio
import signal

import pytest

from fleetkit.client import Client, Streamed, greedy
from fleetkit.procs import alive, kill, until
from fleetkit.rig import Rig, Worker
from fleetkit.story import at_token, same, tell, turn, turns, words

pytestmark = pytest.mark.asyncio(loop_scope="session")

STARTED, TOKENS, FINISHED = (b'"event":"%s"' % name for name in (b"started", b"tokens", b"finished"))


def dies_at(worker: Worker, pattern: bytes) -> None:
    """Kill the worker when it says `pattern`, before anyone hears it."""

    async def die() -> bool:
        kill(worker.pid)
        return False

    worker.wire.down.on(pattern, die)


async def deadly(rig: Rig, client: Client, plan, pattern: bytes) -> list[Streamed]:
    """Tell the plan; in its second turn whichever worker holds the session dies at `pattern`."""
    name = (await client.open())["name"]
    told = [await client.turn(name, plan[0])]
    dies_at(rig.worker((await client.session(name))["worker"]), pattern)
    return told + [await client.turn(name, body) for body in plan[1:]]


def moved_once(seen: Streamed) -> None:
    (moved,) = seen.named("turn.moved")
    assert moved.data["from"] != moved.data["to"]
    assert moved.data["attempt"] == 2


@pytest.mark.parametrize(
    ("pattern", "ids_before", "greedily"),
    [(TOKENS, 0, True), (FINISHED, 40, False)],
    ids=["before-the-first-token", "after-the-last-token-before-finish"],
)
async def test_the_stream_goes_on_when_the_worker_dies(rig, client, pattern, ids_before, greedily):
    plan = turns(1, greedily=greedily)
    expected = await tell(client, plan)
    told = await deadly(rig, client, plan, pattern)
    same(told, expected)
    moved_once(told[1])
    seen_before = sum(len(e.data["ids"]) for e in told[1].events if e.name == "token" and e.seq < _moved_at(told[1]))
    assert seen_before == ids_before


def _moved_at(seen: Streamed) -> int:
    return seen.named("turn.moved")[0].seq


async def test_the_stream_goes_on_when_the_worker_dies_between_tokens(rig, client):
    plan = turns(2, new=60)
    expected = await tell(client, plan)
    victims: list[str] = []

    async def hook(event, seen):
        if event.name == "turn.started":
            victims.append(event.data["worker"])
        if event.name == "token" and len(seen.ids) >= 12 and len(victims) == 1:
            kill(rig.worker(victims[0]).pid)
            victims.append("")

    told = await tell(client, plan, {1: hook})
    same(told, expected)
    moved_once(told[1])


async def test_a_finish_received_is_committed_though_the_worker_is_gone(rig, client):
    plan = turns(3)
    expected = await tell(client, plan)
    name = (await client.open())["name"]
    told = [await client.turn(name, plan[0])]
    worker, ledger = rig.worker((await client.session(name))["worker"]), rig.gateways[0].wire
    dead = asyncio.Event()

    async def die() -> bool:
        ledger.up.hold()
        kill(worker.pid)
        dead.set()
        return True

    async def let_go() -> None:
        await dead.wait()
        await asyncio.sleep(0.2)
        ledger.up.release()

    worker.wire.down.on(FINISHED, die)
    releasing = asyncio.create_task(let_go())
    told += [await client.turn(name, body) for body in plan[1:]]
    await releasing
    same(told, expected)
    assert told[1].named("turn.moved") == []
    assert told[1].end["turn_index"] == 1


async def test_a_worker_that_dies_during_prefill_costs_only_the_prefill(rig, client):
    plan = [greedy(words(4, 12), 8), greedy(words(5, 3000), 16), greedy(words(6, 8), 8)]
    expected = await tell(client, plan)
    name = (await client.open())["name"]
    told = [await client.turn(name, plan[0])]
    worker = rig.worker((await client.session(name))["worker"])

    async def die_soon() -> bool:
        asyncio.get_running_loop().call_later(0.05, kill, worker.pid)
        return True

    worker.wire.down.on(STARTED, die_soon)
    told += [await client.turn(name, body) for body in plan[1:]]
    same(told, expected)
    moved_once(told[1])
    assert told[1].events[0].name == "turn.started"
    assert told[1].events[1].name == "turn.moved", "no token came before the move"
    assert told[1].named("turn.moved")[0].data["recomputed_tokens"] >= 20


async def test_a_turn_survives_two_deaths(rig, client):
    await rig.mend(workers=3)
    plan = turns(7, new=80, greedily=False)
    expected = await tell(client, plan)
    at = {10: False, 40: False}
    where: list[str] = []

    async def hook(event, seen):
        if event.name == "turn.started":
            where.append(event.data["worker"])
        if event.name == "turn.moved":
            where.append(event.data["to"])
        for count, done in at.items():
            if not done and len(seen.ids) >= count and event.name == "token":
                at[count] = True
                kill(rig.worker(where[-1]).pid)

    told = await tell(client, plan, {1: hook})
    same(told, expected)
    assert [event.data["attempt"] for event in told[1].named("turn.moved")] == [2, 3]


async def test_a_turn_that_kills_every_worker_is_given_up_after_two_moves(rig, client):
    await rig.mend(workers=3)
    plan = turns(8)
    name = (await client.open())["name"]
    first = await client.turn(name, plan[0])
    for worker in rig.workers:
        dies_at(worker, TOKENS)
    poison = await client.turn(name, plan[1])
    assert poison.outcome == "aborted", poison.end
    assert poison.end["head"] == first.end["head"]
    assert len(poison.named("turn.moved")) == 2
    await until(lambda: not any(alive(worker.pid) for worker in rig.workers), "all three to be dead")
    await rig.mend(workers=1)
    assert (await client.turn(name, plan[1])).outcome == "committed", "the session goes on where it was"


async def test_on_worker_failure_abort_says_so_and_changes_nothing(rig, client):
    plan = turns(9)
    name = (await client.open())["name"]
    first = await client.turn(name, plan[0])
    dies_at(rig.worker((await client.session(name))["worker"]), FINISHED)
    seen = await client.turn(name, {**plan[1], "on_worker_failure": "abort"})
    assert seen.outcome == "aborted"
    assert seen.end["retry_safe"] is True
    assert seen.end["head"] == first.end["head"]
    view = await client.session(name)
    assert (view["head"], view["turns"]) == (first.end["head"], 1)
    expected = await tell(client, plan)
    same([first, await client.turn(name, plan[1]), await client.turn(name, plan[2])], expected)


async def test_a_turn_waits_for_capacity_when_the_last_worker_dies(rig, client):
    plan = turns(10, new=60)
    expected = await tell(client, plan)
    adding: list[asyncio.Task] = []

    def kill_all() -> None:
        for worker in rig.workers:
            kill(worker.pid)
        adding.append(asyncio.create_task(rig.add_workers(1)))

    told = await tell(client, plan, {1: at_token(10, kill_all)})
    await adding[0]
    same(told, expected)
    (moved,) = told[1].named("turn.moved")
    assert moved.data["to"] == rig.workers[-1].id


async def test_a_frozen_worker_is_left_and_its_return_harms_nobody(rig, client):
    plan = turns(11, new=60, count=4)
    expected = await tell(client, plan)
    name = (await client.open())["name"]
    told = [await client.turn(name, plan[0])]
    frozen = rig.worker((await client.session(name))["worker"])
    told.append(await turn(client, name, plan[1], at_token(8, lambda: kill(frozen.pid, signal.SIGSTOP))))
    moved_once(told[1])
    kill(frozen.pid, signal.SIGCONT)
    told += [await client.turn(name, body) for body in plan[2:]]
    same(told, expected)


async def test_an_address_that_comes_back_is_another_worker(rig, client):
    plan = turns(12)
    expected = await tell(client, plan)
    name = (await client.open())["name"]
    told = [await client.turn(name, plan[0])]
    old = rig.worker((await client.session(name))["worker"])
    new = await rig.launch_worker()
    kill(old.pid)
    old.wire.target = new.wire.target
    old.wire.cut()
    told += [await client.turn(name, body) for body in plan[1:]]
    same(told, expected)
    assert old.id not in {event.data.get("to") for event in told[1].events}
    await new.process.stop()
    await new.wire.close()


async def test_away_from_a_worker_and_back_with_an_older_head_there(rig, client):
    plan = turns(13, count=4)
    expected = await tell(client, plan)
    name = (await client.open())["name"]
    told = [await client.turn(name, plan[0])]
    home = rig.worker((await client.session(name))["worker"])
    (away,) = rig.others(home)
    await rig.register(home, cordoned=True)
    told.append(await client.turn(name, plan[1]))
    assert told[1].events[0].data["worker"] == away.id
    await rig.register(home)
    await rig.register(away, cordoned=True)
    told += [await client.turn(name, body) for body in plan[2:]]
    assert told[2].events[0].data["worker"] == home.id
    await rig.register(away)
    same(told, expected)
