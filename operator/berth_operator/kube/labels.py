"""The labels of workers' pods: how the operator finds its own, and how a person does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from berth_operator.model import FleetKey, Place

if TYPE_CHECKING:
    from berth_operator.kube.store import Body

FLEET = "berth.dev/fleet"
REVISION = "berth.dev/revision"
ORDINAL = "berth.dev/ordinal"
MANAGED_BY = "app.kubernetes.io/managed-by"
NAME = "app.kubernetes.io/name"

OPERATOR, WORKER = "berth-operator", "berth-worker"
OURS = f"{MANAGED_BY}={OPERATOR},{NAME}={WORKER}"
"""Selects the pods of all fleets."""


def of(place: Place) -> dict[str, str]:
    """Return the labels of the pod at a place."""
    return {
        NAME: WORKER,
        MANAGED_BY: OPERATOR,
        FLEET: place.fleet.name,
        REVISION: place.revision,
        ORDINAL: str(place.ordinal),
    }


def selector(fleet: FleetKey) -> str:
    """Return what selects the pods of one fleet, within its namespace."""
    return f"{NAME}={WORKER},{FLEET}={fleet.name}"


def place_of(pod: Body) -> Place | None:
    """Return where a pod stands; None for one that we did not make."""
    meta = pod["metadata"]
    known = meta.get("labels", {})
    ordinal = known.get(ORDINAL, "")
    if known.get(MANAGED_BY) != OPERATOR or FLEET not in known or REVISION not in known or not ordinal.isdecimal():
        return None
    place = Place(FleetKey(meta["namespace"], known[FLEET]), int(ordinal), known[REVISION])
    # Labels can be copied; the name is what no two pods share.
    return place if meta["name"] == str(place) else None
