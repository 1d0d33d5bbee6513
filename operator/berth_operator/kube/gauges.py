"""The fleets in numbers, as the gateways and the cluster have them now."""

from __future__ import annotations

from berth_api.admin import FleetView
from berth_operator.admin_client import AdminClient
from berth_operator.errors import AdminRefused, AdminUnavailable
from berth_operator.kube.metrics import Metrics
from berth_operator.kube.store import Store
from berth_operator.model import FleetKey
from berth_operator.roster import Roster


class Gauges:
    """Sets the gauges of every fleet; one that the gateways do not know, or cannot be asked about, has none."""

    def __init__(self, metrics: Metrics, store: Store, roster: Roster, admin: AdminClient) -> None:
        self._metrics = metrics
        self._store = store
        self._roster = roster
        self._admin = admin

    async def read(self) -> None:
        """Ask, then show all at once: a scrape in between would find half a fleet."""
        views = await self._views()
        for gauge in (self._metrics.sessions, self._metrics.slots, self._metrics.workers):
            gauge.clear()
        for fleet, view in views.items():
            self._metrics.watch_fleet(*fleet)
            self._show(fleet, view, len(self._store.pods(fleet)))

    async def _views(self) -> dict[FleetKey, FleetView]:
        views = {}
        for key in self._store.keys("fleet"):
            try:
                views[FleetKey(*key)] = await self._admin.fleet(*key)
            except AdminRefused:
                continue
            except AdminUnavailable:
                break  # Nor could the others be asked about, and each would take its time to say so.
        return views

    def _show(self, fleet: FleetKey, view: FleetView, pods: int) -> None:
        held = view.resident - view.running
        sessions = {
            "running": view.running,
            "idle_held": held,
            "hibernated": view.hibernated,
            "pending": view.pending,
        }
        slots = {"active": view.running, "idle_held": held, "free": max(0, view.slots - view.resident)}
        for gauge, numbers in (
            (self._metrics.sessions, sessions),
            (self._metrics.slots, slots),
            (self._metrics.workers, self._workers(fleet, pods)),
        ):
            for state, number in numbers.items():
                gauge.labels(*fleet, state).set(number)

    def _workers(self, fleet: FleetKey, pods: int) -> dict[str, int]:
        registered = self._roster.of(fleet) or ()
        cordoned = sum(worker.cordoned for worker in registered)
        return {
            "ready": len(registered) - cordoned,
            "cordoned": cordoned,
            "starting": max(0, pods - len(registered)),
        }
