"""Names of pods, for people: they outlive their pods for a while, since one wants to read which was lost."""

from __future__ import annotations

KEPT = 10_000


class PodNames:
    """Remembers the pods that were seen last."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def saw(self, uid: str, name: str) -> None:
        """Remember a pod, and forget the one that was seen longest ago where there are too many."""
        self._names.pop(uid, None)
        self._names[uid] = name
        if len(self._names) > KEPT:
            del self._names[next(iter(self._names))]

    def of(self, worker: str) -> str:
        """Return the name of a worker's pod; of one that was never seen, its uid."""
        uid = worker.partition(".")[0]
        return self._names.get(uid, uid)
