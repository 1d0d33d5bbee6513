"""What keeps the operator honest: complete lists of the cluster and questions to the gateways, time and again."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress

import structlog

from berth_operator.admin_client import AdminClient
from berth_operator.errors import AdminRefused, AdminUnavailable, ClusterRefused, ClusterUnavailable
from berth_operator.kube.absences import Absences, Gone
from berth_operator.kube.cluster import Cluster
from berth_operator.kube.ledger_view import LedgerView
from berth_operator.kube.settings import KubeSettings
from berth_operator.kube.store import KINDS, Key, Kind
from berth_operator.kube.triggers import Triggers
from berth_operator.model import FleetKey
from berth_operator.roster import Roster

log = structlog.get_logger("berth_operator")

NOT_KNOWN, FORBIDDEN = 401, 403
JUDGED_BY: tuple[Kind, ...] = ("fleet", "pod", "node")
AGAIN_S = 1.0
"""Between two tries to see everything, until one succeeds: much waits for it."""


class Upkeep:
    """`listed` is set once everything has been seen, `asked` once the gateways have been asked too, whether or not they
    answered. `keep()` is called with every complete list: what was known of objects that are gone may go.
    """

    def __init__(
        self,
        settings: KubeSettings,
        cluster: Cluster,
        triggers: Triggers,
        *,
        admin: AdminClient,
        roster: Roster,
        ledger: LedgerView,
        keep: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self.listed, self.asked = asyncio.Event(), asyncio.Event()
        self.blind = ""
        """Why the last complete list failed."""
        self.hidden: set[Kind] = set()
        """Kinds that the operator has no right to see, and works without."""
        self._settings = settings
        self._cluster = cluster
        self._triggers = triggers
        self._store = triggers.store
        self._admin = admin
        self._roster = roster
        self._ledger = ledger
        self._absences = Absences(settings.times.absent_s)
        self._keep = keep
        self._clock = clock
        self._seen_at = -math.inf

    def is_current(self) -> bool:
        """Whether the cluster has been seen lately."""
        return self._clock() - self._seen_at <= self._settings.times.late_s

    async def resync(self) -> None:
        """See everything, every now and then. Raises ClusterRefused where that is not allowed, or not any more."""
        while True:
            try:
                await self.see_all()
            except ClusterUnavailable as error:
                self._failed(error)
            except ClusterRefused as error:
                # One that has just started may not know its own rules yet.
                if not self.listed.is_set() or error.status == NOT_KNOWN:
                    raise
                self._failed(error)
            else:
                self.blind = ""
            await asyncio.sleep(AGAIN_S if self.blind else self._settings.times.resync_s)

    def _failed(self, error: Exception) -> None:
        """Said once, however often it is tried."""
        self._store.excuse()
        before, self.blind = self.blind, f"no complete list: {error}"
        if self.blind != before:
            log.warning("no complete list", error=str(error))

    async def poll(self) -> None:
        """Ask the gateways, very often."""
        await self.listed.wait()
        while True:
            await self.ask()
            await asyncio.sleep(self._settings.times.poll_s)

    async def see_all(self) -> None:
        """List everything, have everything looked at, close what has no resource any more."""
        before = [Gone(Key(each.namespace, each.name), each.uid) for each in self._ledger.all()]
        began, uids = self._clock(), dict.fromkeys(KINDS, frozenset[str]())
        for kind in KINDS:
            uids[kind] = await self._list(kind, self._settings.namespaces)
        self._seen_at = began
        self.listed.set()
        self._keep()
        self._triggers.everything()
        for gone in self._absences.due(before, uids["session"], self._clock()):
            self._triggers.close(gone)

    async def see(self, namespace: str) -> None:
        """List what the fleets of a namespace are judged by. Raises ClusterUnavailable, ClusterRefused."""
        for kind in JUDGED_BY:
            await self._list(kind, (namespace,))

    async def ask(self) -> None:
        """Ask the gateways what they see, and have looked at whatever is not as it was."""
        before = self._roster.registered
        now = await self._roster.look()
        if now != before:
            moved = {worker.fleet for worker in set(now or ()) ^ set(before or ())}
            everybody = now is None or before is None
            for key in self._triggers.fleets():
                if everybody or FleetKey(*key) in moved:
                    self._triggers.look_at_fleet(key)
        await self._follow(await self._namespaces())
        self.asked.set()

    async def _list(self, kind: Kind, namespaces: tuple[str, ...]) -> frozenset[str]:
        """Return the uids of all there are in these namespaces, or everywhere."""
        spaces = namespaces if kind != "node" else ()
        uids: set[str] = set()
        try:
            for namespace in spaces or (None,):
                listing = await self._cluster.list(kind, namespace)
                self._store.listed(kind, listing, namespace)
                uids |= {body["metadata"]["uid"] for body in listing.bodies}
        except ClusterRefused as error:
            if kind != "node" or error.status != FORBIDDEN:
                raise
            if kind not in self.hidden:
                log.warning("nodes cannot be seen: workers on a silent one are replaced later", error=str(error))
            self.hidden.add(kind)
        return frozenset(uids)

    async def _follow(self, namespaces: list[str]) -> None:
        """Follow the ledger; a namespace that is heard of for the first time, or again, has its sessions looked at."""
        answered, knew = self._ledger.available, {each for each in namespaces if self._ledger.knows(each)}
        await self._ledger.follow(namespaces, lambda key: self._store.get("session", key) is not None)
        for key in self._store.keys("session"):
            news = key.namespace not in knew and self._ledger.knows(key.namespace)
            if news or self._ledger.available != answered:
                self._triggers.session_moved(key)

    async def _namespaces(self) -> list[str]:
        """Return where sessions of resources may be: where there are resources, and where there were."""
        found = {key.namespace for key in (*self._store.keys("session"), *self._store.keys("fleet"))}
        # Where that fails nothing is closed on that account: what is not listed is not missed.
        with suppress(AdminUnavailable, AdminRefused):
            found |= set(await self._admin.namespaces())
        return sorted(namespace for namespace in found if self._settings.serves(namespace))
