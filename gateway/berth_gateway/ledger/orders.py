"""Orders as they are given: one subscription a process, made again whenever it breaks.

Redis forgets what it publishes while nobody listens, so this is only the fast path; `renew` brings the same order to
the same owner within a third of a lease.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from msgspec import MsgspecError, msgpack
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from berth_gateway.ledger.records import Order

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from berth_gateway.ledger.settings import LedgerSettings

CHANNEL = "berth:orders"


async def heard(url: str, settings: LedgerSettings, closed: asyncio.Event) -> AsyncIterator[Order]:
    """Yield orders until `closed`; a broken subscription is made again, with a pause that grows."""
    pause = settings.retry_first_s
    while not closed.is_set():
        try:
            async for order in _subscribed(url, settings, closed):
                pause = settings.retry_first_s
                yield order
        except (RedisError, OSError):
            await _pause(closed, pause)
            pause = min(2 * pause, settings.retry_most_s)


async def _subscribed(url: str, settings: LedgerSettings, closed: asyncio.Event) -> AsyncIterator[Order]:
    client = Redis.from_url(
        url,
        socket_timeout=settings.socket_timeout_s,
        socket_connect_timeout=settings.socket_timeout_s,
        health_check_interval=settings.socket_timeout_s,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )
    async with client, client.pubsub(ignore_subscribe_messages=True) as subscription:
        await subscription.subscribe(CHANNEL)
        while not closed.is_set():
            message = await subscription.get_message(timeout=settings.retry_most_s)
            if message is None:
                continue
            try:
                yield msgpack.decode(message["data"], type=Order)
            except MsgspecError:
                continue  # another version's; the owner hears of it by `renew`


async def _pause(closed: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(closed.wait(), seconds)
    except TimeoutError:
        return
