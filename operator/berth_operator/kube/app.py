"""The operator, put together: what watches, what looks, what keeps both honest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import aiohttp
import structlog

from berth_operator.admin_client import AdminClient
from berth_operator.errors import AdminRefused, AdminUnavailable, ClusterRefused, ClusterUnavailable
from berth_operator.kube import http
from berth_operator.kube.absences import Absences, Lost
from berth_operator.kube.cluster import Cluster, configuration_of, connected
from berth_operator.kube.fleets import Fleets
from berth_operator.kube.gauges import Gauges
from berth_operator.kube.hands import Hands
from berth_operator.kube.labels import place_of
from berth_operator.kube.ledger_view import LedgerView
from berth_operator.kube.metrics import Metrics
from berth_operator.kube.queue import KeyedQueue
from berth_operator.kube.sessions import Sessions
from berth_operator.kube.settings import KubeSettings
from berth_operator.kube.sizing import Sizing
from berth_operator.kube.status_writer import Pace, StatusWriter
from berth_operator.kube.store import KINDS, Body, Key, Kind, Store, key_of
from berth_operator.kube.watch import watch
from berth_operator.kube.words import Words
from berth_operator.model import FleetKey
from berth_operator.roster import Roster

log = structlog.get_logger("berth_operator")

FLEET_LOOKS, SESSION_LOOKS, CLOSINGS = 8, 32, 8
"""Looks side by side. A fleet's may wait for many pods; sessions come by the thousand."""
NAMES_KEPT = 10_000
BLIND_S = 1.0
"""Between two tries of a complete list, until there is one."""
LATE_RESYNCS = 3
"""A watch that owes a change for so many complete lists is dead."""


@asynccontextmanager
async def running(settings: KubeSettings) -> AsyncIterator[Operator]:
    """Run an operator for as long as the body does. Raises ClusterUnavailable, OSError."""
    configuration = await configuration_of(settings.kubeconfig)
    async with connected(configuration, settings.times.api_s) as cluster, aiohttp.ClientSession() as session:
        admin = AdminClient(lambda: settings.gateways, settings.admin_token, session, timeout_s=settings.times.admin_s)
        operator = Operator(settings, cluster, admin)
        runner, operator.url = await http.serve(
            settings.host,
            settings.port,
            metrics=operator.metrics,
            troubles=operator.troubles,
            waits=operator.waits,
        )
        try:
            yield operator
        finally:
            await runner.cleanup()


class Operator:
    """`run` works until cancelled."""

    def __init__(self, settings: KubeSettings, cluster: Cluster, admin: AdminClient) -> None:
        times, clock = settings.times, time.time
        self.url = ""
        self.metrics = Metrics()
        self._settings = settings
        self._cluster = cluster
        self._admin = admin
        self._store = Store(self._changed, clock)
        self._roster = Roster(admin, clock)
        self._ledger = LedgerView(admin, self._session_moved, relist_s=times.history_s, clock=clock)
        self._absences = Absences(times.absent_s)
        self._listed = asyncio.Event()
        self._watching = asyncio.Event()
        self._blind = ""
        self._fleets = Fleets(
            settings,
            self._store,
            cluster,
            roster=self._roster,
            words=Words(admin, self._roster),
            hands=Hands(settings, cluster, self._store, admin, clock),
            sizing=Sizing(admin),
            writer=StatusWriter("fleet", cluster, self._store, Pace(0.0, 0.0), clock),  # few, and people watch them
            clock=clock,
            moved=self._fleet_moved,
        )
        self._sessions = Sessions(
            self._store,
            cluster,
            admin=admin,
            ledger=self._ledger,
            writer=StatusWriter("session", cluster, self._store, Pace(times.session_status_s, times.history_s), clock),
            metrics=self.metrics,
            clock=clock,
            word=self._fleets.word,
            pod_of=self._pod_of,
        )
        self._fleet_queue = KeyedQueue(self._look_at_fleet, workers=FLEET_LOOKS, failed=_failed("fleet"))
        self._session_queue = KeyedQueue(self._look_at_session, workers=SESSION_LOOKS, failed=_failed("session"))
        self._pods: dict[str, str] = {}
        self._gauges = Gauges(self.metrics, self._store, self._roster, admin)
        self._closings = KeyedQueue(self._sessions.close, workers=CLOSINGS, failed=_failed("closing"))
        for kind, queue in (
            ("fleet", self._fleet_queue),
            ("session", self._session_queue),
            ("closing", self._closings),
        ):
            self.metrics.watch_queue(kind, queue.__len__)
        for each in KINDS:
            self.metrics.watch_lateness(each, partial(self._store.late_s, each))

    def troubles(self) -> list[str]:
        """Return why this process should be started anew."""
        limit = LATE_RESYNCS * self._settings.times.resync_s
        late = {kind: self._store.late_s(kind) for kind in KINDS}
        return [f"the watch of {kind}s is {age:.0f} s behind" for kind, age in late.items() if age > limit]

    def waits(self) -> list[str]:
        """Return what has not been seen yet, or cannot be seen now."""
        parts = {"the cluster's objects": self._listed.is_set(), "the watch": self._watching.is_set()}
        return [*(f"waiting for {name}" for name, there in parts.items() if not there), *filter(None, [self._blind])]

    async def run(self, ready: Callable[[], None]) -> None:
        """Watch, look and keep up until a signal ends the watch; `ready` is called once everything has been seen.

        Raises what has ended any other part, which is a fault of ours.
        """
        settings = self._settings
        loops = (
            watch(self._store, settings.kubeconfig, settings.namespaces, ready=self._watching),
            self._fleet_queue.run(),
            self._session_queue.run(),
            self._closings.run(),
            self._resync(),
            self._poll(),
            self._count(),
            self._announce(ready),
        )
        tasks = [asyncio.create_task(loop) for loop in loops]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _announce(self, ready: Callable[[], None]) -> None:
        await asyncio.gather(self._listed.wait(), self._watching.wait())
        ready()
        await asyncio.Event().wait()

    # What makes somebody look ---------------------------------------------------------------------------------------

    def _changed(self, kind: Kind, old: Body | None, new: Body | None) -> None:
        body = new or old
        assert body is not None
        key = key_of(body)
        if kind == "fleet":
            self._fleet_queue.add(key)
            self._fleet_moved(FleetKey(*key))
        elif kind == "session":
            if old is not None and (new is None or new["metadata"]["uid"] != old["metadata"]["uid"]):
                self._closings.add((key, old["metadata"]["uid"]))
            self._session_queue.add(key)
        elif kind == "pod":
            self._name(body["metadata"]["uid"], key.name)
            if new is None:
                self._fleets.forget_pod(body["metadata"]["uid"])
            place = place_of(body)
            if place is not None:
                self._fleet_queue.add(Key(*place.fleet))
        elif old is None or new is None or _is_silent(old) != _is_silent(new):
            for fleet in self._fleet_keys():
                self._fleet_queue.add(fleet)

    def _name(self, uid: str, name: str) -> None:
        """Names outlive their pods for a while: people want to read which one was lost."""
        self._pods.pop(uid, None)
        self._pods[uid] = name
        while len(self._pods) > NAMES_KEPT:
            del self._pods[next(iter(self._pods))]

    def _session_moved(self, key: Key) -> None:
        self._session_queue.add(key)

    def _fleet_moved(self, fleet: FleetKey) -> None:
        """What its sessions may say of themselves has changed."""
        for body in self._store.all("session", fleet.namespace):
            if body["spec"].get("fleet", "default") == fleet.name:
                self._session_queue.add(key_of(body))

    def _fleet_keys(self) -> set[Key]:
        """Return all fleets that anybody wants, or that something is left of."""
        registered = (worker.fleet for worker in self._roster.registered or ())
        pods = (place.fleet for pod in self._store.all("pod") if (place := place_of(pod)))
        found = {Key(*fleet) for fleet in (*registered, *pods) if self._settings.serves(fleet.namespace)}
        return found | set(self._store.keys("fleet"))

    async def _look_at_fleet(self, key: Key) -> float | None:
        await self._listed.wait()
        with self.metrics.look("fleet"):
            return await self._fleets.look(key)

    async def _look_at_session(self, key: Key) -> float | None:
        await self._listed.wait()
        with self.metrics.look("session"):
            return await self._sessions.look(key)

    # What keeps up --------------------------------------------------------------------------------------------------

    async def _resync(self) -> None:
        """List everything, look at everything, close what has no resource any more."""
        while True:
            try:
                await self._list()
            except (ClusterUnavailable, ClusterRefused) as error:
                # Refused: an API server that has just started does not know its own rules yet.
                self._blind = f"no complete list: {error}"
                log.warning("no complete list", error=str(error))
            else:
                self._blind = ""
            await asyncio.sleep(BLIND_S if self._blind else self._settings.times.resync_s)

    async def _list(self) -> None:
        before = [Lost(Key(each.namespace, each.name), each.uid) for each in self._ledger.all()]
        for kind in KINDS:
            spaces = self._settings.namespaces if kind != "node" else ()
            for namespace in spaces or (None,):
                listing = await self._cluster.list(kind, namespace)
                self._store.listed(kind, listing, namespace)
        self._listed.set()
        for fleet in self._fleet_keys():
            self._fleet_queue.add(fleet)
        for session in self._store.keys("session"):
            self._session_queue.add(session)
        uids = {body["metadata"]["uid"] for body in self._store.all("session")}
        for lost in self._absences.due(before, uids, time.time()):
            self._closings.add((lost.key, lost.uid))

    async def _poll(self) -> None:
        """Ask the gateways what they see, and have looked at whatever is not as it was."""
        await self._listed.wait()
        while True:
            before = self._roster.registered
            now = await self._roster.look()
            if now != before:
                moved = {worker.fleet for worker in set(now or ()) ^ set(before or ())}
                everybody = now is None or before is None
                for key in self._fleet_keys():
                    if everybody or FleetKey(*key) in moved:
                        self._fleet_queue.add(key)
            await self._ledger.follow(await self._namespaces(), lambda key: self._store.get("session", key) is not None)
            await asyncio.sleep(self._settings.times.poll_s)

    async def _namespaces(self) -> list[str]:
        """Return where sessions of resources may be: where there are resources, and where there were."""
        found = {key.namespace for key in (*self._store.keys("session"), *self._store.keys("fleet"))}
        # Where that fails nothing is closed on that account: what is not listed is not missed.
        with suppress(AdminUnavailable, AdminRefused):
            found |= set(await self._admin.namespaces())
        return sorted(namespace for namespace in found if self._settings.serves(namespace))

    async def _count(self) -> None:
        await self._listed.wait()
        while True:
            await self._gauges.read()
            await asyncio.sleep(self._settings.times.poll_s)

    def _pod_of(self, namespace: str, worker: str) -> str:
        """Return the name of a worker's pod; of one that was never seen, its uid."""
        uid = worker.partition(".")[0]
        return self._pods.get(uid, uid)


def _failed(kind: str) -> Callable[[object, Exception], None]:
    def failed(key: object, error: Exception) -> None:
        expected = isinstance(error, AdminUnavailable | ClusterUnavailable)
        if expected:
            log.warning("a look failed and is repeated", kind=kind, key=str(key), error=str(error))
        else:
            log.error("a look failed and is repeated", kind=kind, key=str(key), exc_info=error)

    return failed


def _is_silent(node: Body) -> bool:
    conditions = node.get("status", {}).get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] != "True" for each in conditions)
