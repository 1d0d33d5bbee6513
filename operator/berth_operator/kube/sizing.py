"""How many workers a fleet is to have: as its spec says, or as its load does."""

from __future__ import annotations

from berth_api.crd import Autoscaling, FleetSpec, seconds
from berth_operator.admin_client import AdminClient
from berth_operator.autoscale import Bounds, Demand, Stabilizer, wanted
from berth_operator.errors import AdminRefused, AdminUnavailable
from berth_operator.model import FleetKey, Registration


class Sizing:
    """Keeps, of each fleet that follows its load, what was wanted lately."""

    def __init__(self, admin: AdminClient) -> None:
        self._admin = admin
        self._stabilizers: dict[FleetKey, Stabilizer] = {}

    def forget(self, fleet: FleetKey) -> None:
        self._stabilizers.pop(fleet, None)

    async def desired(
        self, key: FleetKey, spec: FleetSpec, registered: tuple[Registration, ...] | None, live: int, now: float
    ) -> int:
        """Return the number of workers to have. `live` are those there are, and stay while nobody sees the load."""
        if spec.autoscaling is None:
            self.forget(key)
            return 1 if spec.replicas is None else spec.replicas
        scaling = spec.autoscaling
        stabilizer = self._stabilizers.setdefault(key, Stabilizer(live, now))
        demand = await self._demand(key, registered)
        if demand is None:
            return max(scaling.min, min(scaling.max, live))
        number = wanted(_bounds(scaling), spec.slots, demand)
        return min(scaling.max, stabilizer.follow(number, now, seconds(scaling.scale_down_stabilization)))

    async def _demand(self, key: FleetKey, registered: tuple[Registration, ...] | None) -> Demand | None:
        """Return the fleet's load; None where nobody can say it."""
        if registered is None:
            return None
        if registered:
            held = sum(worker.running + worker.resident for worker in registered)
            return Demand(held, registered[0].waiting)
        try:
            return Demand(0, (await self._admin.fleet(*key)).pending)
        except AdminRefused:
            # Nobody knows its model yet, so no session can be opened: the first worker will tell.
            return Demand(0, waiting=1)
        except AdminUnavailable:
            return None


def _bounds(scaling: Autoscaling) -> Bounds:
    return Bounds(scaling.min, scaling.max, scaling.buffer_slots)
