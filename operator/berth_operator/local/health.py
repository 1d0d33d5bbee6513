"""Asks the workers how they are, beside everything else: a silent one must not slow down the look at the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import aiohttp

from berth_operator.model import Ready
from berth_operator.since import since


class Health:
    """`unhealthy` says since when each worker (by id) has failed its health check without a break."""

    def __init__(self, http: aiohttp.ClientSession, *, every_s: float, timeout_s: float) -> None:
        self.unhealthy: dict[str, float] = {}
        self._http = http
        self._every_s = every_s
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    async def watch(self, workers: Callable[[], Iterable[Ready]]) -> None:
        """Ask all of them, over and over, until cancelled."""
        while True:
            await self.look(list(workers()))
            await asyncio.sleep(self._every_s)

    async def look(self, workers: list[Ready]) -> None:
        """Ask each once."""
        now = asyncio.get_running_loop().time()
        answers = await asyncio.gather(*(self._is_well(worker.url) for worker in workers))
        failing = [worker.id for worker, well in zip(workers, answers, strict=True) if not well]
        self.unhealthy = since(self.unhealthy, failing, now)

    async def _is_well(self, url: str) -> bool:
        try:
            async with self._http.get(f"{url}/health", timeout=self._timeout, allow_redirects=False) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False
