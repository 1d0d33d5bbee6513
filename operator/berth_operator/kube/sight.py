"""What there is of a fleet: its pods, and its workers as the gateways know them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from berth_operator.kube.hands import Hands
from berth_operator.kube.instances import Clock, Trouble, ended, instance, silent_since, trouble
from berth_operator.kube.labels import place_of
from berth_operator.kube.store import Body, Key, Store
from berth_operator.kube.words import Words
from berth_operator.model import FleetKey, Instance, Place, Registration
from berth_operator.roster import Roster


@dataclass(frozen=True)
class Sight:
    """One look. `registered` None: nobody can say, or what is seen of pods is old."""

    now: float
    pods: dict[Place, Body]
    instances: tuple[Instance, ...]
    registered: tuple[Registration, ...] | None

    @property
    def live(self) -> dict[Place, str]:
        """Where there are workers to stay, with the uids of their pods."""
        return {each.place: each.uid for each in self.instances if not each.stopping}


class Eyes:
    """`current()` says whether the cluster has been seen lately: whoever has not must not judge by it."""

    def __init__(
        self,
        store: Store,
        *,
        roster: Roster,
        words: Words,
        hands: Hands,
        gone_s: float,
        current: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._roster = roster
        self._words = words
        self._hands = hands
        self._gone_s = gone_s
        self._current = current
        self._clock = clock

    def over(self, fleet: FleetKey) -> dict[Place, Body]:
        """Return the pods that have ended, and of which only the object is left."""
        return {place: pod for place, pod in self._all(fleet).items() if ended(pod)}

    async def look(self, fleet: FleetKey, owner: str | None) -> Sight:
        """Look, having asked workers for their word. `owner` is the fleet's uid, None where nobody wants it."""
        pods = {place: pod for place, pod in self._all(fleet).items() if not ended(pod)}
        if owner is not None and self._current():
            await self._words.hear(fleet, pods.values())
        now = self._clock()
        registered = self._roster.of(fleet) if self._current() else None
        return Sight(now, pods, tuple(self._instance(pod, owner, now) for pod in pods.values()), registered)

    def troubles(self, fleet: FleetKey, sight: Sight) -> list[Trouble]:
        """Return what keeps its pods from serving."""
        live = sight.live
        refused = [self._words.refused[uid] for uid in live.values() if uid in self._words.refused]
        unfilled = [why for place, why in self._hands.refused.items() if place.fleet == fleet and place not in live]
        return [*refused, *unfilled, *filter(None, (trouble(sight.pods[place]) for place in live))]

    def _all(self, fleet: FleetKey) -> dict[Place, Body]:
        placed = ((place_of(pod), pod) for pod in self._store.all("pod", fleet.namespace))
        return {place: pod for place, pod in placed if place is not None and place.fleet == fleet}

    def _instance(self, pod: Body, owner: str | None, now: float) -> Instance:
        cut_off = self._cut_off()
        node = None if cut_off else self._store.get("node", Key("", pod["spec"].get("nodeName", "")))
        found = instance(pod, node, self._words.heard, owner, Clock(now, self._gone_s))
        if cut_off:
            found = replace(found, started_at=now, unhealthy_since=None)
        return replace(found, stopping=True) if found.uid in self._hands.ending else found

    def _cut_off(self) -> bool:
        """Whether no node speaks: then the cluster has lost its network, not all workers their lives."""
        nodes = list(self._store.all("node"))
        return bool(nodes) and all(silent_since(node) is not None for node in nodes)
