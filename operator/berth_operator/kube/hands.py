"""What the operator does to pods and registrations. Each act is safe to repeat, and to leave half done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from berth_api.admin import WorkerPut
from berth_api.crd import InferenceFleet
from berth_operator.admin_client import AdminClient
from berth_operator.errors import (
    AdminRefused,
    AdminUnavailable,
    ClusterConflict,
    ClusterRefused,
    ClusterUnavailable,
)
from berth_operator.kube import pods
from berth_operator.kube.cluster import Cluster
from berth_operator.kube.instances import Trouble, is_ending
from berth_operator.kube.settings import KubeSettings
from berth_operator.kube.store import Body, Store
from berth_operator.model import (
    Action,
    Cordon,
    Drop,
    Fleet,
    Instance,
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
    """`ending` are the pods (by uid) that were told to end; `restarts` and `refused` tell of places that could not be
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
        """Pods first, side by side; then what the gateways are told, whatever became of the pods. `at` has the pods.

        Raises what kept a pod from being told to end.
        """
        orders = []
        for action in actions:
            match action:
                case Stop(place):
                    orders.append(self._end(at[place], "removed", grace_s=pods.DRAINED_S))
                case Kill(place):
                    orders.append(self._end(at[place], "replaced: it does not answer"))
        if resource is not None:
            orders.append(self._start(resource, [action.place for action in actions if isinstance(action, Start)]))
        outcomes = await asyncio.gather(*orders, return_exceptions=True)
        await self._tell(actions)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _tell(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Register(place, ready) | Uncordon(place, ready):
                    await self._put(place, ready, cordoned=False)
                case Cordon(place, ready):
                    await self._put(place, ready, cordoned=True)
                case Drop(worker_id):
                    await self._drop(worker_id)

    async def bury(self, place: Place, pod: Body) -> None:
        """Remove the object of a pod that is over. One that nobody told to end counts as a failure of its place."""
        meta = pod["metadata"]
        if meta["uid"] not in self.ending and not is_ending(pod):
            self._failed(place)
        await self._cluster.delete_pod(meta["namespace"], meta["name"], uid=meta["uid"], grace_s=0)
        self.ending.add(meta["uid"])

    def settle(self, target: Fleet, instances: Sequence[Instance]) -> None:
        """Forget what hindered pods that nobody wants any more, and the failures where a worker has got ready."""
        ready = {each.place for each in instances if each.ready}
        live = sum(each.place.revision == target.revision and not each.stopping for each in instances)

        def past(place: Place) -> bool:
            return place.fleet == target.key and place.revision != target.revision

        def moot(place: Place) -> bool:
            return past(place) or (place.fleet == target.key and live >= target.replicas)

        self.restarts = {place: n for place, n in self.restarts.items() if not past(place) and place not in ready}
        self.refused = {place: why for place, why in self.refused.items() if not moot(place)}

    def _failed(self, place: Place) -> None:
        self.restarts[place] = self.restarts.get(place, Restarts()).failed(self._clock())

    async def _start(self, resource: InferenceFleet, places: Sequence[Place]) -> None:
        """Few at first, then ever more side by side: what one is refused, all others would be too."""
        tried, most = 0, 1
        while tried < len(places):
            batch = places[tried : tried + most]
            refusals = await asyncio.gather(*(self._create(resource, place) for place in batch))
            tried, most = tried + most, 2 * most
            for why in filter(None, refusals):
                for place in places[tried:]:
                    self._refuse(place, why)
                return

    async def _create(self, resource: InferenceFleet, place: Place) -> Trouble | None:
        """Return why the API server would not have the pod."""
        manifest = pods.pod(resource, place, self._settings.pods, self._settings.times.start_s)
        try:
            made = await self._cluster.create_pod(place.fleet.namespace, manifest)
        except ClusterConflict:
            # It is there, and will be seen; unless somebody else has the name.
            if self.restarts.get(place, Restarts()).failures > 0:
                self.refused[place] = Trouble("PodRefused", f"there is a pod {place} that is not of this fleet")
            self._failed(place)
            return None
        except (ClusterRefused, ClusterUnavailable) as error:
            return self._refuse(place, Trouble("PodRefused", str(error)))
        self.refused.pop(place, None)
        self._store.wrote("pod", made)
        log.info("pod started", fleet=str(place.fleet), pod=str(place))
        return None

    def _refuse(self, place: Place, why: Trouble) -> Trouble:
        self._failed(place)
        self.refused[place] = why
        return why

    async def _end(self, pod: Body, how: str, grace_s: int | None = None) -> None:
        meta = pod["metadata"]
        await self._cluster.delete_pod(meta["namespace"], meta["name"], uid=meta["uid"], grace_s=grace_s)
        self.ending.add(meta["uid"])
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
