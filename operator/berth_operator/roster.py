"""The workers as the gateways know them, with since when each is idle or cordoned: they tell only what is now."""

from __future__ import annotations

from collections.abc import Callable

from berth_api.admin import WorkerView
from berth_operator.admin_client import AdminClient
from berth_operator.errors import AdminRefused, AdminUnavailable
from berth_operator.model import FleetKey, Registration
from berth_operator.since import since


class Roster:
    """`registered` is what the last look found; None where no gateway answered."""

    def __init__(self, admin: AdminClient, clock: Callable[[], float]) -> None:
        self.registered: tuple[Registration, ...] | None = None
        self._admin = admin
        self._clock = clock
        self._idle: dict[str, float] = {}
        self._cordoned: dict[str, float] = {}

    async def look(self) -> tuple[Registration, ...] | None:
        """Ask the gateways, and return what they say."""
        try:
            views = await self._admin.workers()
        except (AdminUnavailable, AdminRefused):
            self.registered = None
            return None
        now = self._clock()
        self._idle = since(self._idle, (view.id for view in views if not view.running), now)
        self._cordoned = since(self._cordoned, (view.id for view in views if view.cordoned), now)
        self.registered = tuple(self._registration(view) for view in views)
        return self.registered

    def of(self, fleet: FleetKey) -> tuple[Registration, ...] | None:
        """Return what is known of one fleet's workers."""
        if self.registered is None:
            return None
        return tuple(worker for worker in self.registered if worker.fleet == fleet)

    def _registration(self, view: WorkerView) -> Registration:
        return Registration(
            FleetKey(view.namespace, view.fleet),
            view.id,
            view.url,
            view.cordoned,
            running=len(view.running),
            resident=len(view.idle),
            waiting=view.waiting,
            idle_since=self._idle.get(view.id),
            cordoned_since=self._cordoned.get(view.id),
        )
