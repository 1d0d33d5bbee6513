"""A ledger on a real Redis, and short words for what tests do with it.

Time is moved, never waited for: `expire` and `age` set a session's times in Redis as if it had passed.
"""

from __future__ import annotations

import asyncio
import inspect
import uuid
from dataclasses import dataclass

import pytest
import redis.asyncio

from berth_api.public import Usage
from berth_api.wire import FinishReason
from berth_gateway.ledger.ledger import Ledger
from berth_gateway.ledger.records import Acquired, Ended, SessionRecord
from berth_gateway.ledger.settings import LedgerSettings

WITHIN_S = 30.0
"""A loaded machine is slow; no test takes so long unless something is broken."""

FINISH = FinishReason("stop", matched=2)


def pack(*ids: int) -> bytes:
    return b"".join(token.to_bytes(4, "little") for token in ids)


@dataclass
class Kit:
    """Namespace `default`, fleet `default`; every default a test does not care about."""

    ledger: Ledger
    redis: redis.asyncio.Redis

    async def worker(self, name: str = "w1", *, slots: int = 4, fingerprint: str = "model", **more):
        more = {"fleet": "default", "url": f"http://{name}"} | more
        return await self.ledger.put_worker("default", name, slots=slots, fingerprint=fingerprint, **more)

    async def open(self, name: str = "alice", uid: str | None = None, **more) -> SessionRecord:
        more = {"fleet": "default"} | more
        return (await self.ledger.open("default", name, uid or str(uuid.uuid4()), **more)).session

    async def acquire(self, name: str = "alice", turn: str = "t1", **more):
        more = {"digest": "d", "input_tokens": 2, "lease_s": 60} | more
        return await self.ledger.acquire("default", name, turn, **more)

    async def commit(self, acquired: Acquired, *ids: int, ledger: Ledger | None = None) -> Ended:
        ids = ids or (1, 2, 3)
        return await (ledger or self.ledger).commit(
            acquired.fence,
            parent=acquired.parent,
            ids=pack(*ids),
            input_tokens=2,
            finish=FINISH,
            usage=Usage(acquired.tokens + 2, len(ids) - 2, 0),
        )

    async def turn(self, name: str = "alice", turn: str = "t1", ids: tuple[int, ...] = (1, 2, 3)) -> Ended:
        return await self.commit(await self.acquire(name, turn), *ids)

    async def session(self, name: str = "alice") -> SessionRecord:
        return await self.ledger.session("default", name)

    async def state(self, *ignore: str) -> dict[str, object]:
        """Everything in the database but the keys that begin so: two equal states are the same ledger."""
        found: dict[str, object] = {}
        async for key in self.redis.scan_iter():
            name = key.decode()
            if not name.removeprefix("berth:{default}:").startswith(ignore):
                found[name] = await self.read(key)
        return found

    async def read(self, key: bytes) -> object:
        match await self.redis.type(key):
            case b"hash":
                return await self.redis.hgetall(key)
            case b"zset":
                return await self.redis.zrange(key, 0, -1, withscores=True)
            case b"set":
                return await self.redis.smembers(key)
            case b"list":
                return await self.redis.lrange(key, 0, -1)
            case b"stream":
                return await self.redis.xrange(key)
            case _:
                return await self.redis.get(key)

    async def raw(self, name: str, **fields: str | float | bytes) -> None:
        await self.redis.hset(f"berth:{{default}}:session:{name}", mapping=fields)

    async def expire(self, name: str = "alice", by_s: float = 0.001) -> None:
        """Let the running turn's lease be over since `by_s`."""
        seconds, micros = await self.redis.time()
        over = seconds * 1_000_000 + micros - round(by_s * 1e6)
        worker = (await self.redis.hget(f"berth:{{default}}:session:{name}", "worker")).decode()
        await self.raw(name, lease_until=over)
        await self.redis.zadd(f"berth:{{default}}:worker:{worker}:running", {name: over}, xx=True)
        await self.redis.zadd("berth:{default}:due", {name: over}, xx=True)

    async def age(self, name: str, seconds: float) -> None:
        """Let the session's last turn have ended so much earlier."""
        key = f"berth:{{default}}:session:{name}"
        last = int(await self.redis.hget(key, "last_active")) - round(seconds * 1e6)
        await self.redis.hset(key, "last_active", last)
        await self.redis.zincrby("berth:{default}:due", -seconds * 1e6, name)


@pytest.fixture
def eventually():
    """Wait for a condition of another process: `await eventually(lambda: …)`, the value awaited where it must be."""

    async def wait(condition) -> None:
        async with asyncio.timeout(WITHIN_S):
            while True:
                met = condition()
                if inspect.isawaitable(met):
                    met = await met
                if met:
                    return
                await asyncio.sleep(0.002)

    return wait


@pytest.fixture
async def make_ledger(redis_url: str):
    """Make ledgers as several gateways would; all are closed at the end."""
    made: list[Ledger] = []

    def make(url: str = redis_url, **settings) -> Ledger:
        ledger = Ledger.connect(url, LedgerSettings(**settings))
        made.append(ledger)
        return ledger

    yield make
    for ledger in made:
        await ledger.aclose()


@pytest.fixture
async def kit(redis_url: str, make_ledger):
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        yield Kit(make_ledger(), client)


@pytest.fixture
async def other(make_ledger) -> Ledger:
    """The ledger as another gateway has it."""
    return make_ledger()
