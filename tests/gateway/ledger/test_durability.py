"""Promise 3: what was acknowledged survives; what cannot be promised is said; an older ledger still moves forward."""

from __future__ import annotations

import asyncio
import shutil
import socket

import pytest

from berth_api import errors, heads
from berth_api.public import Usage
from berth_api.wire import FinishReason
from berth_gateway.ledger.errors import DurabilityUnknown, FenceLost

WITHIN_S = 30
IDS = b"\1\0\0\0\2\0\0\0"


async def begin(ledger, name: str, uid: str) -> None:
    await ledger.put_worker("default", "w1", fleet="default", url="http://w1", slots=64, fingerprint="f")
    await ledger.open("default", name, uid, fleet="default")


async def acquire(ledger, name: str, turn: str, lease_s: float = 60):
    return await ledger.acquire("default", name, turn, digest="d", input_tokens=1, lease_s=lease_s)


async def commit(ledger, acquired, ids: bytes = IDS):
    return await ledger.commit(
        acquired.fence,
        parent=acquired.parent,
        ids=ids,
        input_tokens=1,
        finish=FinishReason("length"),
        usage=Usage(1, 1, 0),
    )


async def test_acknowledged_commits_survive_a_killed_redis(own_redis, make_ledger, eventually):
    ledger = make_ledger(own_redis.url, deadline_s=0.5, socket_timeout_s=0.3)
    acknowledged: dict[str, list[str]] = {}

    async def talk(name: str) -> None:
        await begin(ledger, name, name)
        try:
            for turn in range(10_000):
                ended = await commit(ledger, await acquire(ledger, name, f"t{turn}"))
                acknowledged.setdefault(name, []).append(ended.outcome.head)
        except errors.LedgerUnavailable:
            return

    talking = asyncio.gather(*(talk(f"s{number}") for number in range(8)))
    await eventually(lambda: sum(map(len, acknowledged.values())) >= 200)
    own_redis.kill()
    await talking
    await asyncio.to_thread(own_redis.start)

    for name, seen in acknowledged.items():
        stored = (await ledger.heads("default", name, uid=name))[1:]
        assert stored[: len(seen)] == seen
        assert len(stored) - len(seen) <= 1  # the one whose answer never came
        again = await acquire(ledger, name, f"t{len(seen) - 1}")
        assert again.outcome.head == seen[-1]


async def test_a_ledger_restored_from_an_older_file_moves_on_forward(own_redis, make_ledger, eventually):
    ledger = make_ledger(own_redis.url, deadline_s=WITHIN_S)
    await begin(ledger, "alice", "u1")
    first = await commit(ledger, await acquire(ledger, "alice", "t1"))
    cursor = (await ledger.changes("default")).cursor
    older = own_redis.directory / "older"
    await eventually(lambda: in_file(own_redis, first.outcome.head))
    shutil.copytree(own_redis.directory / "appendonlydir", older)

    await commit(ledger, await acquire(ledger, "alice", "t2"))
    zombie = await acquire(ledger, "alice", "t3")
    own_redis.kill()
    shutil.rmtree(own_redis.directory / "appendonlydir")
    shutil.copytree(older, own_redis.directory / "appendonlydir")
    await asyncio.to_thread(own_redis.start)

    assert (await ledger.session("default", "alice")).turns == 1
    with pytest.raises(FenceLost):
        await commit(ledger, zombie)
    with pytest.raises(errors.CursorGone):
        await ledger.changes("default", after=cursor)
    again = await acquire(ledger, "alice", "t2")
    assert again.fence.epoch > zombie.fence.epoch
    assert again.parent == first.outcome.head
    assert (await commit(ledger, again)).outcome.position == 1


def in_file(server, text: str) -> bool:
    files = (server.directory / "appendonlydir").glob("*.aof")
    return any(text.encode() in path.read_bytes() for path in files)


async def test_an_epoch_goes_on_though_the_clock_of_redis_went_back(kit):
    await kit.worker()
    await kit.open()
    await kit.turn()
    ahead = (await kit.session()).epoch + 10**12
    await kit.raw("alice", epoch=ahead)
    assert (await kit.acquire(turn="t2")).fence.epoch == ahead + 1


@pytest.fixture
async def pair(own_redis, start_redis, eventually):
    """A primary and a replica that follows it."""
    replica = start_redis("--appendonly", "no")
    with own_redis.client() as client:
        port = free_port()
        client.config_set("repl-diskless-sync-delay", 0)
        client.config_set("port", port)
    with replica.client() as client:
        client.replicaof("127.0.0.1", port)
        await eventually(lambda: client.info("replication")["master_link_status"] == "up")
    return own_redis, replica


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def durable(ledger, acquired):
    """Commit until enough replicas have it (they may be slow on a loaded machine)."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                return await commit(ledger, acquired)
            except DurabilityUnknown:
                continue


async def test_a_commit_waits_for_its_replicas_and_says_when_they_do_not_have_it(pair, make_ledger):
    primary, replica = pair
    ledger = make_ledger(primary.url, wait_replicas=1, wait_timeout_s=0.2)
    await begin(ledger, "alice", "u1")
    assert (await durable(ledger, await acquire(ledger, "alice", "t1"))).outcome.position == 0

    replica.pause()
    acquired = await acquire(ledger, "alice", "t2")
    another = make_ledger(primary.url, wait_replicas=1, wait_timeout_s=0.2)
    for asked in (ledger, another):  # asked again on a connection that wrote nothing, it waits again
        with pytest.raises(DurabilityUnknown):
            await commit(asked, acquired)
    replica.resume()
    ended = await durable(ledger, acquired)
    assert ended.outcome.position == 1
    session = await ledger.session("default", "alice")
    assert (session.turns, session.head) == (2, heads.advance(heads.advance("", IDS), IDS))


async def test_calls_that_need_no_replica_do_not_wait_for_one(pair, make_ledger):
    primary, replica = pair
    ledger = make_ledger(primary.url, wait_replicas=1, wait_timeout_s=0.3)
    await begin(ledger, "alice", "u1")
    acquired = await acquire(ledger, "alice", "t1")
    replica.pause()
    committing = asyncio.ensure_future(commit(ledger, acquired))
    answered = await asyncio.gather(ledger.session("default", "alice"), ledger.fleets("default"))
    assert answered[0].name == "alice"
    assert not committing.done()
    with pytest.raises(DurabilityUnknown):
        await committing
    replica.resume()
