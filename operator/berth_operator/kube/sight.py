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
        now, cut_off = self._clock(), self._cut_off()
        registered = self._roster.of(fleet) if self._current() else None
        instances = tuple(self._instance(pod, owner, now, cut_off=cut_off) for pod in pods.values())
        return Sight(now, pods, instances, registered)

    def troubles(self, fleet: FleetKey, sight: Sight) -> list[Trouble]:
        """Return what keeps its pods from serving, in the order of their places: whoever looks has to say the same."""
        live = sight.live
        refused = [self._words.refused[uid] for uid in live.values() if uid in self._words.refused]
        hindered = sorted(place for place in self._hands.refused if place.fleet == fleet and place not in live)
        unfilled = [self._hands.refused[place] for place in hindered]
        return [*refused, *unfilled, *filter(None, (trouble(sight.pods[place], sight.now) for place in live))]

    def _all(self, fleet: FleetKey) -> dict[Place, Body]:
        placed = [(place, pod) for pod in self._store.pods(fleet) if (place := place_of(pod)) is not None]
        return dict(sorted(placed, key=lambda item: item[0]))

    def _instance(self, pod: Body, owner: str | None, now: float, *, cut_off: bool) -> Instance:
        node = None if cut_off else self._store.get("node", Key("", pod["spec"].get("nodeName", "")))
        found = instance(pod, node, self._words.heard, owner, Clock(now, self._gone_s))
        if cut_off:
            found = replace(found, started_at=now, unhealthy_since=None)
        return replace(found, stopping=True) if found.uid in self._hands.ending else found

    def _cut_off(self) -> bool:
        """Whether no node speaks: then the cluster has lost its network, not all workers their lives."""
        nodes = list(self._store.all("node"))
        return bool(nodes) and all(silent_since(node) is not None for node in nodes)
