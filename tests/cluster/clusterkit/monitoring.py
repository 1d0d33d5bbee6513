"""What a cluster's Prometheus does: it scrapes gateways, the operator, and each worker's pod at its own address.

Debian's Prometheus cannot ask a cluster for its pods: they are discovered here, with the labels of docs/metrics.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from clusterkit.scene import Scene
from fleetkit.prometheus import Job, Prometheus, Target

PORT = 8000
_EVERY_S = 0.5


@asynccontextmanager
async def monitored(scene: Scene, folder: Path) -> AsyncIterator[Prometheus]:
    """Run a Prometheus that follows the scene's pods."""
    server = Prometheus(folder)
    try:
        await server.start(*parts(scene), await workers(scene))
        following = asyncio.create_task(_follow(server, scene))
        try:
            yield server
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
    finally:
        await server.stop()


def parts(scene: Scene) -> list[Job]:
    """What runs beside the cluster; anybody may read their metrics."""
    gateways = [Target(gateway.url) for gateway in scene.platform.gateways]
    return [Job("gateway", gateways), Job("operator", [Target(scene.platform.operator.url)], honor_labels=True)]


async def workers(scene: Scene) -> Job:
    """The pods that there are; their metrics want the workers' token."""
    found = []
    for pod in await scene.api.list(f"/api/v1/namespaces/{scene.namespace}/pods"):
        meta, address = pod["metadata"], pod["status"].get("podIP")
        if address:
            labels = {"namespace": meta["namespace"], "fleet": meta["labels"]["berth.dev/fleet"], "pod": meta["name"]}
            found.append(Target(f"http://{address}:{PORT}", labels))
    return Job("worker", found, token_file=scene.platform.rig.worker_token)


async def _follow(server: Prometheus, scene: Scene) -> None:
    while True:
        server.watch(await workers(scene))
        await asyncio.sleep(_EVERY_S)
