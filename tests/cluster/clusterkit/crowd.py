"""Sessions by the thousand: made at once, asked after by lists, counted in the audit log."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

from clusterkit.api import Object
from clusterkit.audit import Audit, Request
from clusterkit.platform import ACCOUNT
from clusterkit.scene import VERSION, Scene, session
from clusterkit.waiting import until

AT_ONCE = 64
"""Requests under way side by side while sessions are made: no client waits for the operator."""
STATUS = "streamingsessions/status"


@dataclass(frozen=True)
class Crowd:
    """`count` sessions of one fleet, all in the scene's namespace."""

    scene: Scene
    count: int
    fleet: str = "tiny"

    @property
    def path(self) -> str:
        return f"/apis/{VERSION}/namespaces/{self.scene.namespace}/streamingsessions"

    async def make(self) -> None:
        """Create the resources as fast as the API server takes them."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            async with gate:
                await self.scene.api.create(self.path, session(f"s{number:04}", fleet=self.fleet))

        await asyncio.gather(*(one(number) for number in range(self.count)))

    async def ready(self) -> int:
        """Return how many are Ready."""
        # A version of 0: the API server's cache will do, so that asking costs etcd nothing.
        found = await self.scene.api.list(self.path, resourceVersion="0")
        return sum(map(_is_ready, found))

    async def all_ready(self, timeout_s: float) -> None:
        async def so() -> bool:
            return await self.ready() == self.count

        await until(so, f"{self.count} sessions are Ready", timeout_s, every_s=0.5)

    async def delete(self) -> None:
        """Delete all resources in one request."""
        await self.scene.api.call("DELETE", self.path)

    async def kept(self) -> int:
        """Return how many sessions of resources the ledger has."""
        asked = f"/admin/sessions?namespace={self.scene.namespace}&origin=cr&limit=1000"
        return len((await self.scene.platform.admin("GET", asked))["sessions"])

    async def all_closed(self, timeout_s: float) -> None:
        async def so() -> bool:
            with suppress(RuntimeError):  # a ledger that does not answer in time is asked again, as the operator does
                return await self.kept() == 0
            return False

        await until(so, "the ledger has closed every session", timeout_s, every_s=0.5)


def by_the_operator(audit: Audit, since: int) -> list[Request]:
    """Return what the operator has asked of the API server."""
    return audit.requests(since=since, user=f":{ACCOUNT}")


def writes_a_session(audit: Audit, since: int) -> Counter[str]:
    """Return how often the status of each session was written, by its name."""
    return Counter(write.name for write in audit.writes(since=since, user=f":{ACCOUNT}", resource=STATUS))


def _is_ready(one: Object) -> bool:
    conditions = one.get("status", {}).get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
