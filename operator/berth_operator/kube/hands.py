"""What the operator does to pods and registrations. Each act is safe to repeat, and to leave half done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from berth_api.admin import WorkerPut
from berth_api.crd import InferenceFleet
from berth_operator.admin_client import AdminClient
from berth_operator.errors import AdminRefused, AdminUnavailable, ClusterConflict, ClusterRefused
from berth_operator.kube import pods
from berth_operator.kube.cluster import Cluster
from berth_operator.kube.instances import Trouble
from berth_operator.kube.settings import KubeSettings
from berth_operator.kube.store import Body, Store
from berth_operator.model import (
    Action,
    Cordon,
    Drop,
    Kill,
    Place,
    Ready,
    Register,
    Restarts,
    Start,
    Stop,
    Uncordon,
)

log = structlog.get_logger("berth_operator.hands")


class Hands:
    """`ending` are the pods (by uid) that were told to end; `restarts` and `refused` tell of places that cannot be
    filled, and why.
    """

    def __init__(
        self,
        settings: KubeSettings,
        cluster: Cluster,
        store: Store,
        admin: AdminClient,
        clock: Callable[[], float],
    ) -> None:
        self.ending: set[str] = set()
        self.restarts: dict[Place, Restarts] = {}
        self.refused: dict[Place, Trouble] = {}
        self._settings = settings
        self._cluster = cluster
        self._store = store
        self._admin = admin
        self._clock = clock

    async def carry_out(
        self, actions: Sequence[Action], resource: InferenceFleet | None, at: dict[Place, Body]
    ) -> None:
        """Pods first, side by side; then what the gateways are told. `at` has the pods there are."""
        orders = []
        for action in actions:
            match action:
                case Start(place) if resource is not None:
                    orders.append(self._start(resource, place))
                case Stop(place):
                    orders.append(self._end(at[place], "removed", grace_s=pods.DRAINED_S))
                case Kill(place):
                    orders.append(self._end(at[place], "replaced: it does not answer"))
        await asyncio.gather(*orders)
        for action in actions:
            match action:
                case Register(place, ready) | Uncordon(place, ready):
                    await self._put(place, ready, cordoned=False)
                case Cordon(place, ready):
                    await self._put(place, ready, cordoned=True)
                case Drop(worker_id):
                    await self._drop(worker_id)

    async def bury(self, place: Place, pod: Body) -> None:
        """Remove the object of a pod that is over, which counts as a failure of its place unless it was told to end."""
        meta = pod["metadata"]
        if meta["uid"] not in self.ending:
            self.ending.add(meta["uid"])
            if "deletionTimestamp" not in meta:
                self._failed(place)
        await self._cluster.delete_pod(meta["namespace"], meta["name"], uid=meta["uid"], grace_s=0)

    def _failed(self, place: Place) -> None:
        self.restarts[place] = self.restarts.get(place, Restarts()).failed(self._clock())

    async def _start(self, resource: InferenceFleet, place: Place) -> None:
        manifest = pods.pod(resource, place, self._settings.pods, self._settings.times.start_s)
        try:
            made = await self._cluster.create_pod(place.fleet.namespace, manifest)
        except ClusterConflict:
            return  # It is there, and will be seen.
        except ClusterRefused as error:
            self._failed(place)
            self.refused[place] = Trouble("PodRefused", str(error))
            return
        self.refused.pop(place, None)
        self._store.wrote("pod", made)
        log.info("pod started", fleet=str(place.fleet), pod=str(place))

    async def _end(self, pod: Body, how: str, grace_s: int | None = None) -> None:
        meta = pod["metadata"]
        self.ending.add(meta["uid"])
        await self._cluster.delete_pod(meta["namespace"], meta["name"], uid=meta["uid"], grace_s=grace_s)
        log.info("pod ended", namespace=meta["namespace"], pod=meta["name"], how=how)

    async def _put(self, place: Place, ready: Ready, *, cordoned: bool) -> None:
        worker = WorkerPut(place.fleet.namespace, place.fleet.name, ready.url, cordoned=cordoned)
        try:
            await self._admin.put_worker(ready.id, worker)
        except (AdminRefused, AdminUnavailable) as error:
            # The next look finds it as it was.
            log.warning("a worker's registration was not changed", worker=ready.id, error=str(error))

    async def _drop(self, worker_id: str) -> None:
        try:
            await self._admin.drop_worker(worker_id)
        except (AdminRefused, AdminUnavailable) as error:
            log.warning("a worker was not dropped", worker=worker_id, error=str(error))
