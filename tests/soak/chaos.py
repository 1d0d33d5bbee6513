"""The faults of a soak: what is killed, frozen, cut off, and brought back, by the dice of one seed."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from fleetkit.procs import alive, kill
from fleetkit.rig import Gateway, Rig, Worker

Part = TypeVar("Part", Worker, Gateway)


class Chaos:
    """Strikes every few seconds; the dead are replaced after a while, so the fleet never stays short."""

    def __init__(self, rig: Rig, seed: int, *, workers: int, gateways: int, every_s: tuple[float, float] = (1.5, 5.0)):
        self._rig = rig
        self._dice = random.Random(f"chaos-{seed}")
        self._wanted = {"workers": workers, "gateways": gateways}
        self._every_s = every_s
        self._repairs: set[asyncio.Task[None]] = set()
        self._replacing: set[int] = set()
        self.struck: Counter[str] = Counter()

    async def run(self) -> None:
        """Strike until cancelled."""
        faults: list[tuple[int, str, Callable[[], Awaitable[bool]]]] = [
            (30, "worker killed", self._kill_worker),
            (15, "gateway killed", self._kill_gateway),
            (15, "worker frozen", self._freeze_worker),
            (14, "gateway frozen", self._freeze_gateway),
            (16, "gateway cut off from Redis", self._cut_off),
            (10, "Redis killed", self._kill_redis),
        ]
        weights = [weight for weight, _, _ in faults]
        while True:
            await asyncio.sleep(self._dice.uniform(*self._every_s))
            _, name, strike = self._dice.choices(faults, weights)[0]
            if await strike():
                self.struck[name] += 1

    async def calm(self) -> None:
        """Let every repair end, then bring the fleet back to its full strength."""
        await asyncio.gather(*self._repairs)
        await self._rig.mend(workers=self._wanted["workers"], gateways=self._wanted["gateways"])

    def _later(self, repair: Awaitable[None]) -> None:
        task = asyncio.ensure_future(repair)
        self._repairs.add(task)
        task.add_done_callback(self._repairs.discard)

    def _whole(self, parts: Sequence[Part]) -> list[Part]:
        return [part for part in parts if alive(part.pid) and part.pid not in self._replacing]

    async def _kill_worker(self) -> bool:
        living = self._whole(self._rig.workers)
        if not living:
            return False
        worker = self._dice.choice(living)
        self._replacing.add(worker.pid)
        kill(worker.pid)
        self._later(self._replace_worker(worker, self._dice.uniform(0, 2)))
        return True

    async def _replace_worker(self, worker: Worker, after_s: float) -> None:
        await asyncio.sleep(after_s)
        new = await self._rig.launch_worker()
        await self._until_done(lambda: self._rig.register(new))
        self._rig.workers.append(new)
        await self._until_done(lambda: self._rig.remove(worker))

    async def _kill_gateway(self) -> bool:
        living = self._whole(self._rig.gateways)
        if len(living) < 2:
            return False
        gateway = self._dice.choice(living)
        self._replacing.add(gateway.pid)
        kill(gateway.pid)
        self._later(self._replace_gateway(gateway))
        return True

    async def _replace_gateway(self, gateway: Gateway) -> None:
        await self._rig.drop_gateway(gateway)
        await self._rig.add_gateways(1)

    async def _freeze_worker(self) -> bool:
        return self._freeze(self._whole(self._rig.workers), 5.0)

    async def _freeze_gateway(self) -> bool:
        living = self._whole(self._rig.gateways)
        return len(living) > 1 and self._freeze(living, 5.0)

    def _freeze(self, living: Sequence[Worker | Gateway], most_s: float) -> bool:
        if not living:
            return False
        pid = self._dice.choice(living).pid
        kill(pid, signal.SIGSTOP)
        asyncio.get_running_loop().call_later(self._dice.uniform(0.2, most_s), kill, pid, signal.SIGCONT)
        return True

    async def _cut_off(self) -> bool:
        """Bytes to or from Redis are held for longer than a lease, then all arrive: the zombie's way in."""
        living = self._whole(self._rig.gateways)
        if len(living) < 2:
            return False
        gateway = self._dice.choice(living)
        way = self._dice.choice([gateway.wire.up, gateway.wire.up, gateway.wire.down])
        way.hold()
        asyncio.get_running_loop().call_later(self._dice.uniform(0.3, 4.0), way.release)
        return True

    async def _kill_redis(self) -> bool:
        """The restart is a repair: it happens even where the soak ends meanwhile."""
        if self._rig.redis is None or self._rig.redis.returncode is not None:
            return False
        await self._rig.stop_redis()
        self._later(self._restart_redis(self._dice.uniform(0, 1.0)))
        return True

    async def _restart_redis(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        await self._rig.start_redis()

    async def _until_done(self, act: Callable[[], Awaitable[None]]) -> None:
        """The admin API may be away for a moment, as everything else."""
        for _ in range(60):
            try:
                await act()
            except Exception:
                await asyncio.sleep(0.5)
            else:
                return
        raise RuntimeError("the admin API did not come back within 30 s")
