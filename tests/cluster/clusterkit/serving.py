"""How many workers take turns, looked at all the time: what a rollout promises is about its worst moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from clusterkit.scene import Scene

EVERY_S = 0.1


@dataclass
class Serving:
    """Numbers of workers that were neither cordoned nor dropped, and of pods that were not told to end, as seen."""

    workers: list[int] = field(default_factory=list)
    pods: list[int] = field(default_factory=list)


@asynccontextmanager
async def watched(scene: Scene, fleet: str = "tiny") -> AsyncIterator[Serving]:
    """Look while the body runs, and at least once."""
    seen = Serving()

    async def look() -> None:
        path = f"/api/v1/namespaces/{scene.namespace}/pods"
        while True:
            workers = await scene.platform.admin("GET", f"/admin/workers?namespace={scene.namespace}")
            seen.workers.append(sum(worker["fleet"] == fleet and not worker["cordoned"] for worker in workers))
            pods = await scene.api.list(path, labelSelector=f"berth.dev/fleet={fleet}")
            seen.pods.append(sum("deletionTimestamp" not in pod["metadata"] for pod in pods))
            await asyncio.sleep(EVERY_S)

    looking = asyncio.create_task(look())
    try:
        await asyncio.sleep(0)
        yield seen
        if looking.done():
            looking.result()
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
