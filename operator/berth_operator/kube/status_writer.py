"""Writes statuses, and only what has changed, and not too often: the API server is not a place for what moves fast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from berth_api.crd import FleetStatus, SessionStatus
from berth_operator.errors import ClusterRefused
from berth_operator.kube.cluster import Cluster
from berth_operator.kube.store import Body, Kind, Store

SLOW = {"history"}
"""Members that alone are no reason to write soon."""

Write = Literal["same", "written", "late"]
"""What became of a write: there was nothing to change; it is written; the object is another by now."""


@dataclass(frozen=True)
class Pace:
    """Least seconds between two writes to one object: of any change, and of one that only concerns what is slow."""

    any_s: float
    slow_s: float


class StatusWriter:
    """One a kind. Keeps when it wrote to each object; after a restart, the slow members wait for their time anew."""

    def __init__(self, kind: Kind, cluster: Cluster, store: Store, pace: Pace, clock: Callable[[], float]) -> None:
        self._kind = kind
        self._cluster = cluster
        self._store = store
        self._pace = pace
        self._clock = clock
        self._began = clock()
        self._wrote: dict[str, float] = {}

    def early_s(self, body: Body, status: FleetStatus | SessionStatus) -> float:
        """Return in how many seconds this may be written; 0: now, or there is nothing to write."""
        before, change, uid = body.get("status") or {}, _change(body, status), body["metadata"]["uid"]
        if not change:
            return 0.0
        if _is_slow(before, change):
            due = self._wrote.get(uid, self._began) + self._pace.slow_s
        elif uid in self._wrote:
            due = self._wrote[uid] + self._pace.any_s
        else:
            return 0.0
        return max(0.0, due - self._clock())

    async def write(self, body: Body, status: FleetStatus | SessionStatus) -> Write:
        """Make the object's status so. One that is gone, or not as in `body`, is left: that will be told."""
        change, uid = _change(body, status), body["metadata"]["uid"]
        if not change:
            return "same"
        try:
            written = await self._cluster.patch_status(self._kind, body, change)
        except ClusterRefused as error:
            if error.status in (404, 409):
                return "late"
            raise
        self._wrote[uid] = self._clock()
        self._store.wrote(self._kind, written)
        return "written"

    def keep(self, uids: set[str]) -> None:
        """Forget when it wrote to all objects but these."""
        self._wrote = {uid: at for uid, at in self._wrote.items() if uid in uids}


def _change(body: Body, status: FleetStatus | SessionStatus) -> Body:
    return difference(body.get("status") or {}, status.model_dump(mode="json", by_alias=True, exclude_none=True))


def _is_slow(before: Body, change: Body) -> bool:
    """Whether it only tells how far a history has come, or gives a condition other words: nobody waits for that, and a
    thousand sessions may have the words of one fleet.
    """
    if "history" in change and not before.get("history"):
        return False
    said, says = (_verdicts(conditions) for conditions in (before.get("conditions"), change.get("conditions")))
    return set(change) - {"conditions"} <= SLOW and ("conditions" not in change or said == says)


def _verdicts(conditions: list[Body] | None) -> list[Body]:
    return [{name: value for name, value in each.items() if name != "message"} for each in conditions or ()]


def difference(before: Body, wanted: Body) -> dict[str, Any]:
    """Return the members to set; None for those to remove, which is what a merge patch has for it."""
    gone: dict[str, Any] = {name: None for name in before if name not in wanted}
    return gone | {name: value for name, value in wanted.items() if before.get(name) != value}
