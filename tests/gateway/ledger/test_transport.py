"""How calls survive what happens between us and Redis, and what they say when they do not."""

from __future__ import annotations

import asyncio
import time

import pytest
import redis

from berth_api.errors import LedgerUnavailable, NoSuchSession
from berth_gateway.ledger.errors import LedgerFault
from berth_gateway.ledger.ledger import Ledger
from berth_gateway.ledger.scripts import compose
from berth_gateway.ledger.settings import LedgerSettings

QUICK = {"deadline_s": 0.3, "socket_timeout_s": 0.1}


async def test_without_a_redis_every_call_says_so_within_its_deadline(tmp_path, make_ledger):
    ledger = make_ledger(f"unix://{tmp_path}/none.sock", **QUICK)
    began = time.monotonic()
    for call in (ledger.ping(), ledger.session("default", "alice"), ledger.namespaces()):
        with pytest.raises(LedgerUnavailable) as refusal:
            await call
        assert refusal.value.__cause__ is not None
    assert time.monotonic() - began < 3 * QUICK["deadline_s"] + 1


async def test_a_redis_that_swallows_everything_is_unavailable_and_then_fine_again(kit, make_ledger, chaos_proxy):
    await kit.worker()
    await kit.open()
    ledger = make_ledger(chaos_proxy.url, **QUICK)
    await ledger.session("default", "alice")
    chaos_proxy.black_hole = True
    with pytest.raises(LedgerUnavailable):
        await ledger.session("default", "alice")
    chaos_proxy.black_hole = False
    assert (await ledger.session("default", "alice")).name == "alice"


async def test_calls_ride_out_a_restart_and_scripts_are_sent_again(own_redis, make_ledger):
    ledger = make_ledger(own_redis.url, deadline_s=10.0)
    await ledger.put_worker("default", "w1", fleet="default", url="http://w1", slots=1, fingerprint="f")
    own_redis.kill()
    calls = asyncio.gather(*(ledger.worker("default", "w1") for _ in range(20)))
    await asyncio.sleep(0)
    await asyncio.to_thread(own_redis.start)
    assert {worker.id for worker in await calls} == {"w1"}


async def test_a_flushed_script_cache_is_no_ones_business(kit):
    await kit.worker()
    await kit.redis.script_flush()
    assert len(await asyncio.gather(*(kit.ledger.workers("default") for _ in range(5)))) == 5


async def test_more_calls_than_connections_and_batches_all_come_back(kit, make_ledger):
    await kit.worker()
    await kit.open()
    ledger = make_ledger(connections=2, batch_calls=3)
    before = len(await kit.redis.client_list())
    answers = await asyncio.gather(*(ledger.session("default", "alice") for _ in range(100)))
    assert len({answer.uid for answer in answers}) == 1
    assert len(await kit.redis.client_list()) <= before + 2


async def test_one_refused_call_does_not_disturb_its_batch(kit):
    await kit.worker()
    await kit.open()
    good, bad = kit.ledger.session("default", "alice"), kit.ledger.session("default", "bob")
    answers = await asyncio.gather(good, bad, return_exceptions=True)
    assert answers[0].name == "alice"
    assert isinstance(answers[1], NoSuchSession)


async def test_a_cancelled_call_does_not_disturb_its_batch(kit):
    await kit.worker()
    await kit.open()
    cancelled = asyncio.ensure_future(kit.ledger.session("default", "alice"))
    other = asyncio.ensure_future(kit.ledger.session("default", "alice"))
    await asyncio.sleep(0)
    cancelled.cancel()
    assert (await other).name == "alice"
    with pytest.raises(asyncio.CancelledError):
        await cancelled


async def test_a_full_redis_refuses_at_once_and_changes_nothing(start_redis, make_ledger):
    server = start_redis()
    ledger = make_ledger(server.url, deadline_s=30.0)
    await ledger.put_worker("default", "w1", fleet="default", url="http://w1", slots=1, fingerprint="f")
    with server.client() as client:
        client.config_set("maxmemory", "1")
        began = time.monotonic()
        with pytest.raises(LedgerUnavailable, match="maxmemory"):
            await ledger.open("default", "alice", "u1", fleet="default")
        assert time.monotonic() - began < 10
        with pytest.raises(LedgerUnavailable):
            await ledger.ping()
        client.config_set("maxmemory", "0")
    with pytest.raises(NoSuchSession):
        await ledger.session("default", "alice")


async def test_foreign_data_is_a_fault_and_no_outage(kit):
    await kit.redis.set("berth:{default}:session:alice", "not ours")
    with pytest.raises(LedgerFault):
        await kit.session()


async def test_a_closed_ledger_refuses_and_fails_what_is_in_flight(kit, make_ledger, chaos_proxy, eventually):
    ledger = make_ledger(chaos_proxy.url, socket_timeout_s=30.0, deadline_s=30.0)
    await ledger.ping()
    chaos_proxy.black_hole = True
    flying = asyncio.ensure_future(ledger.session("default", "alice"))
    await eventually(lambda: ledger._transport._flying)
    await ledger.aclose()
    with pytest.raises(LedgerUnavailable):
        await flying
    with pytest.raises(LedgerUnavailable):
        await ledger.ping()
    assert await kit.ledger.workers("default") == []


def test_each_script_names_its_helpers_and_is_found_by_its_sha(redis_url):
    settings = LedgerSettings()
    script = compose("acquire", settings.constants())
    with redis.Redis.from_url(redis_url) as client:
        assert client.script_load(script.text) == script.sha


@pytest.mark.parametrize("url", ["http://x", "redis", ""])
def test_a_url_that_is_none_of_redis_is_refused_at_once(url):
    with pytest.raises(ValueError, match=r"[Rr]edis|URL|url"):
        Ledger.connect(url)
