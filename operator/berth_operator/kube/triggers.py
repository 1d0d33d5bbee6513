"""Whom a change concerns: from what moved in the cluster or at the gateways to what is looked at again."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from berth_operator.kube.absences import Gone
from berth_operator.kube.instances import silent_since
from berth_operator.kube.labels import place_of
from berth_operator.kube.names import PodNames
from berth_operator.kube.queue import KeyedQueue
from berth_operator.kube.settings import KubeSettings
from berth_operator.kube.store import Body, Key, Kind, Store, key_of
from berth_operator.model import FleetKey
from berth_operator.roster import Roster


class Queues(NamedTuple):
    """What wants a look, and what is to be closed."""

    fleets: KeyedQueue[Key]
    sessions: KeyedQueue[Key]
    closings: KeyedQueue[Gone]


class Triggers:
    """Has the store, and queues what each of its changes concerns. `names` knows the pods that were ever seen."""

    def __init__(self, settings: KubeSettings, queues: Queues, roster: Roster, clock: Callable[[], float]) -> None:
        self.store = Store(self._changed, self._deleted, clock)
        self.names = PodNames()
        self._settings = settings
        self._queues = queues
        self._roster = roster

    def session_moved(self, key: Key) -> None:
        """The ledger has it otherwise than before."""
        self._queues.sessions.add(key)

    def fleet_moved(self, fleet: FleetKey) -> None:
        """What its sessions may say of themselves has changed."""
        for body in self.store.all("session", fleet.namespace):
            if body["spec"].get("fleet", "default") == fleet.name:
                self._queues.sessions.add(key_of(body))

    def close(self, gone: Gone) -> None:
        self._queues.closings.add(gone)

    def everything(self) -> None:
        """Have all looked at."""
        for fleet in self.fleets():
            self._queues.fleets.add(fleet)
        for session in self.store.keys("session"):
            self._queues.sessions.add(session)

    def fleets(self) -> set[Key]:
        """Return all fleets that anybody wants, or that something is left of."""
        registered = (worker.fleet for worker in self._roster.registered or ())
        known = (*registered, *self.store.fleets_with_pods())
        found = {Key(*fleet) for fleet in known if self._settings.serves(fleet.namespace)}
        return found | set(self.store.keys("fleet"))

    def look_at_fleet(self, key: Key) -> None:
        self._queues.fleets.add(key)

    def _changed(self, kind: Kind, old: Body | None, new: Body | None) -> None:
        body = new or old
        assert body is not None
        key = key_of(body)
        if kind == "fleet":
            self._queues.fleets.add(key)
            if old is None or new is None:
                self.fleet_moved(FleetKey(*key))
        elif kind == "session":
            if old is not None and new is not None and old["metadata"]["uid"] != new["metadata"]["uid"]:
                self.close(_gone(old))
            self._queues.sessions.add(key)
        elif kind == "pod":
            self.names.saw(body["metadata"]["uid"], key.name)
            place = place_of(body)
            if place is not None:
                self._queues.fleets.add(Key(*place.fleet))
        elif old is None or new is None or (silent_since(old) is None) != (silent_since(new) is None):
            for fleet in self.fleets():
                self._queues.fleets.add(fleet)

    def _deleted(self, kind: Kind, body: Body) -> None:
        """The API server says that it was deleted, which is more than a list that lacks it."""
        if kind == "session":
            self.close(_gone(body))


def _gone(body: Body) -> Gone:
    return Gone(key_of(body), body["metadata"]["uid"], retain=body["spec"].get("deletionPolicy") == "Retain")
