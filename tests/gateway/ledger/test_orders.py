"""Orders on the fast path: heard by every gateway, again after the subscription broke."""

from __future__ import annotations

import asyncio

import pytest

from berth_gateway.ledger.records import Order

WITHIN_S = 30


@pytest.fixture
async def running(kit):
    await kit.worker()
    session = await kit.open()
    await kit.acquire()
    return session


@pytest.fixture
def subscribed(kit, eventually):
    async def wait(count: int) -> None:
        async def there() -> bool:
            return (await kit.redis.pubsub_numsub("berth:orders"))[0][1] == count

        await eventually(there)

    return wait


async def test_every_gateway_hears_an_order(kit, other, running, subscribed):
    heard = [asyncio.ensure_future(anext(ledger.orders())) for ledger in (kit.ledger, other)]
    await subscribed(2)
    await other.stop("default", "alice", "t1", mode="abort")
    async with asyncio.timeout(WITHIN_S):
        assert await asyncio.gather(*heard) == [Order("default", "alice", running.uid, "t1", "abort")] * 2


async def test_what_is_no_order_is_passed_over(kit, running, subscribed):
    heard = asyncio.ensure_future(anext(kit.ledger.orders()))
    await subscribed(1)
    await kit.redis.publish("berth:orders", b"\xc1")
    await kit.ledger.stop("default", "alice", "t1", mode="stop")
    async with asyncio.timeout(WITHIN_S):
        assert (await heard).uid == running.uid


async def test_orders_are_heard_again_after_the_subscription_broke(kit, running, subscribed):
    orders = kit.ledger.orders()
    heard = asyncio.ensure_future(anext(orders))
    await subscribed(1)
    await kit.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    await subscribed(1)
    await kit.ledger.stop("default", "alice", "t1", mode="stop")
    async with asyncio.timeout(WITHIN_S):
        assert (await heard).mode == "stop"
    assert running.uid


async def test_listening_ends_with_the_ledger(make_ledger, subscribed):
    ledger = make_ledger()
    listening = asyncio.ensure_future(collect(ledger))
    await subscribed(1)
    await ledger.aclose()
    async with asyncio.timeout(WITHIN_S):
        assert await listening == []


async def collect(ledger) -> list[Order]:
    return [order async for order in ledger.orders()]
