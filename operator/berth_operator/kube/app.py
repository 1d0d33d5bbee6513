"""The operator, put together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import aiohttp
import structlog

from berth_operator.admin_client import AdminClient
from berth_operator.errors import AdminUnavailable, ClusterUnavailable
from berth_operator.kube import http
from berth_operator.kube.absences import Gone
from berth_operator.kube.cluster import Cluster, configuration_of, connected
from berth_operator.kube.fleets import Fleets
from berth_operator.kube.gauges import Gauges
from berth_operator.kube.hands import Hands
from berth_operator.kube.ledger_view import LedgerView
from berth_operator.kube.metrics import Metrics
from berth_operator.kube.queue import KeyedQueue
from berth_operator.kube.sessions import Sessions
from berth_operator.kube.settings import KubeSettings
from berth_operator.kube.sizing import Sizing
from berth_operator.kube.status_writer import Pace, StatusWriter
from berth_operator.kube.store import KINDS, Key
from berth_operator.kube.triggers import Queues, Triggers
from berth_operator.kube.upkeep import Upkeep
from berth_operator.kube.watch import Flags, watch
from berth_operator.kube.words import Words
from berth_operator.roster import Roster

log = structlog.get_logger("berth_operator")

FLEET_LOOKS, SESSION_LOOKS, CLOSINGS = 8, 32, 8
"""Looks side by side. A fleet's may wait for many pods; sessions come by the thousand."""


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
    """`run` works until it is told to stop."""

    def __init__(
        self, settings: KubeSettings, cluster: Cluster, admin: AdminClient, clock: Callable[[], float] = time.time
    ) -> None:
        times = settings.times
        self.url = ""
        self.metrics = Metrics()
        self._settings = settings
        self._flags = Flags(began=asyncio.Event(), over=asyncio.Event())
        self.queues = Queues(
            fleets=KeyedQueue(self._look_at_fleet, workers=FLEET_LOOKS, failed=_failed("fleet")),
            sessions=KeyedQueue(self._look_at_session, workers=SESSION_LOOKS, failed=_failed("session")),
            closings=KeyedQueue(self._close, workers=CLOSINGS, failed=_failed("closing")),
        )
        roster = Roster(admin, clock)
        self.triggers = Triggers(settings, self.queues, roster, clock)
        store = self._store = self.triggers.store
        ledger = LedgerView(admin, self.triggers.session_moved, relist_s=times.history_s, clock=clock)
        self.upkeep = Upkeep(
            settings,
            cluster,
            self.triggers,
            admin=admin,
            roster=roster,
            ledger=ledger,
            keep=self._keep,
            clock=clock,
        )
        pace = Pace(times.fleet_status_s, times.fleet_status_s)
        self._fleet_writer = StatusWriter("fleet", cluster, store, pace, clock)
        self._fleets = Fleets(
            settings,
            store,
            cluster,
            roster=roster,
            words=Words(admin, roster),
            hands=Hands(settings, cluster, store, admin, clock),
            sizing=Sizing(admin),
            writer=self._fleet_writer,
            clock=clock,
            current=self.upkeep.is_current,
            see=self.upkeep.see,
            moved=self.triggers.fleet_moved,
        )
        pace = Pace(times.session_status_s, times.history_s)
        self._session_writer = StatusWriter("session", cluster, store, pace, clock)
        self._sessions = Sessions(
            store,
            cluster,
            admin=admin,
            ledger=ledger,
            writer=self._session_writer,
            metrics=self.metrics,
            clock=clock,
            word=self._fleets.word,
            pod_of=self.triggers.names.of,
        )
        self._gauges = Gauges(self.metrics, store, roster, admin)
        self.metrics.watch_queue("fleet", self.queues.fleets.__len__)
        self.metrics.watch_queue("session", self.queues.sessions.__len__)
        self.metrics.watch_queue("closing", self.queues.closings.__len__)
        for each in KINDS:
            self.metrics.watch_lateness(each, partial(store.late_s, each))

    def troubles(self) -> list[str]:
        """Return why this process should be started anew."""
        late = {kind: self._store.late_s(kind) for kind in KINDS}
        limit = self._settings.times.late_s
        return [f"the watch of {kind}s is {age:.0f} s behind" for kind, age in late.items() if age > limit]

    def waits(self) -> list[str]:
        """Return what has not been seen yet, or cannot be seen now."""
        parts = {"the cluster's objects": self.upkeep.listed.is_set(), "the watch": self._flags.began.is_set()}
        unseen = [f"waiting for {name}" for name, there in parts.items() if not there]
        return [*unseen, self.upkeep.blind] if self.upkeep.blind else unseen

    async def run(self, ready: Callable[[], None], stop: asyncio.Event) -> None:
        """Look and keep up until `stop` is set; `ready` is called once everything has been seen.

        Raises what ends a part before: ClusterRefused, ClusterUnavailable, or a fault of ours.
        """
        loops = (
            *(queue.run() for queue in self.queues),
            self.upkeep.resync(),
            self.upkeep.poll(),
            self._count(),
            self._announce(ready),
            stop.wait(),
        )
        watching = asyncio.create_task(self._watch())
        tasks = [asyncio.create_task(loop) for loop in loops]
        try:
            await asyncio.wait([watching, *tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Ours first: Kopf waits for all that was begun after it.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._flags.over.set()
            if not self._flags.began.is_set():
                watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        for task in (watching, *tasks):
            if not task.cancelled():
                task.result()

    async def _watch(self) -> None:
        """Watch what could be listed: a kind that the operator has no right to would be asked for in vain, for ever."""
        await self.upkeep.listed.wait()
        kinds = [kind for kind in KINDS if kind not in self.upkeep.hidden]
        await watch(self._store, self._settings, kinds, self._flags)

    async def _announce(self, ready: Callable[[], None]) -> None:
        await asyncio.gather(self.upkeep.listed.wait(), self._flags.began.wait())
        ready()
        await asyncio.Event().wait()

    def _keep(self) -> None:
        self._fleets.keep(self._store.uids("pod"))
        self._fleet_writer.keep(self._store.uids("fleet"))
        self._session_writer.keep(self._store.uids("session"))

    async def _look_at_fleet(self, key: Key) -> float | None:
        await self.upkeep.asked.wait()
        with self.metrics.look("fleet"):
            return await self._fleets.look(key)

    async def _look_at_session(self, key: Key) -> float | None:
        await self.upkeep.asked.wait()
        with self.metrics.look("session"):
            return await self._sessions.look(key)

    async def _close(self, gone: Gone) -> None:
        await self._sessions.close(gone)

    async def _count(self) -> None:
        await self.upkeep.listed.wait()
        while True:
            await self._gauges.read()
            await asyncio.sleep(self._settings.times.poll_s)


def _failed(kind: str) -> Callable[[object, Exception], None]:
    def failed(key: object, error: Exception) -> None:
        expected = isinstance(error, AdminUnavailable | ClusterUnavailable)
        if expected:
            log.warning("a look failed and is repeated", kind=kind, key=str(key), error=str(error))
        else:
            log.error("a look failed and is repeated", kind=kind, key=str(key), exc_info=error)

    return failed
