"""What the API server last told: whole objects by kind, namespace and name.

Two sources feed it. The watch tells of each change; a complete list, every now and then, tells everything. Whichever
knows the newer version of an object wins, so a list that was long under way takes nothing back. A list that lacks an
object is believed when the next one lacks it too: one may come back short.

The lists also tell how far behind the watch is: a version that only a list brought should have come by the watch, and
as long as it has not, the watch is late; a watch that is late for long is dead, whatever its connection says.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

from berth_operator.kube.labels import place_of
from berth_operator.model import FleetKey

Body = dict[str, Any]
Kind = Literal["fleet", "session", "pod", "node"]
KINDS: tuple[Kind, ...] = ("fleet", "session", "pod", "node")


class Key(NamedTuple):
    """An object's place; nodes have the namespace ""."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Listing(NamedTuple):
    """A complete list and the version of the whole that it shows."""

    version: int
    bodies: list[Body]


def key_of(body: Body) -> Key:
    meta = body["metadata"]
    return Key(meta.get("namespace", ""), meta["name"])


def version_of(body: Body) -> int:
    """Return an object's version. Versions of one kind grow in the order of the changes."""
    return int(body["metadata"]["resourceVersion"])


class Store:
    """`changed(kind, old, new)` hears of every change, with None for an object that is not there.

    `deleted(kind, body)` hears of those that the watch says were deleted, which is more than lists can say.
    """

    def __init__(
        self,
        changed: Callable[[Kind, Body | None, Body | None], None],
        deleted: Callable[[Kind, Body], None],
        clock: Callable[[], float],
    ) -> None:
        self._changed = changed
        self._deleted = deleted
        self._clock = clock
        self._objects: dict[Kind, dict[Key, Body]] = {kind: {} for kind in KINDS}
        self._gone: dict[Kind, dict[Key, int]] = {kind: {} for kind in KINDS}
        self._missed: dict[Kind, set[Key]] = {kind: set() for kind in KINDS}
        self._behind: dict[Kind, dict[Key, tuple[int, float]]] = {kind: {} for kind in KINDS}
        self._pods_of: dict[FleetKey, set[Key]] = {}

    def get(self, kind: Kind, key: Key) -> Body | None:
        return self._objects[kind].get(key)

    def all(self, kind: Kind, namespace: str | None = None) -> Iterator[Body]:
        """Yield what there is of a kind, in one namespace or all."""
        return (body for key, body in self._objects[kind].items() if namespace in (None, key.namespace))

    def pods(self, fleet: FleetKey) -> list[Body]:
        """Return a fleet's pods: they are asked for all the time, and there may be many fleets beside it."""
        found = (self._objects["pod"].get(key) for key in self._pods_of.get(fleet, ()))
        return [body for body in found if body is not None]

    def fleets_with_pods(self) -> list[FleetKey]:
        return list(self._pods_of)

    def keys(self, kind: Kind) -> list[Key]:
        return list(self._objects[kind])

    def uids(self, kind: Kind) -> set[str]:
        return {body["metadata"]["uid"] for body in self._objects[kind].values()}

    def heard(self, kind: Kind, body: Body, *, deleted: bool) -> None:
        """Take what the watch told."""
        key, version = key_of(body), version_of(body)
        late = self._behind[kind].get(key)
        if late and late[0] <= version:
            del self._behind[kind][key]
        self._take(kind, key, version, None if deleted else body)
        if deleted:
            self._deleted(kind, body)

    def wrote(self, kind: Kind, body: Body) -> None:
        """Take what the API server answered to a write of ours, ahead of the watch."""
        self._take(kind, key_of(body), version_of(body), body)

    def listed(self, kind: Kind, listing: Listing, namespace: str | None = None) -> None:
        """Take a complete list of one namespace, or of all."""
        now = self._clock()
        listed = {key_of(body): body for body in listing.bodies}

        def here(key: Key) -> bool:
            return namespace in (None, key.namespace)

        def gone(key: Key) -> bool:
            return here(key) and key not in listed

        # Nobody promises that a watch which had to begin anew tells of what went meanwhile: it owes no deletions.
        self._behind[kind] = {key: late for key, late in self._behind[kind].items() if not gone(key)}
        for key, body in listed.items():
            self._note(kind, key, version_of(body), now)
            if self._gone[kind].get(key, 0) <= listing.version:
                self._gone[kind].pop(key, None)  # It is there all the same.
            self._take(kind, key, version_of(body), body)
        missed = set(filter(gone, self._objects[kind]))
        for key in missed & self._missed[kind]:
            self._take(kind, key, listing.version, None)
        self._missed[kind] = missed | set(itertools.filterfalse(here, self._missed[kind]))
        # What this list lacks is remembered until the next one: the watch may still be telling what went before.
        self._gone[kind] = {key: at for key, at in self._gone[kind].items() if at >= listing.version or not here(key)}

    def excuse(self) -> None:
        """Count what the watch owes from now on: where no list can be had, nor can it tell anything."""
        now = self._clock()
        for owed in self._behind.values():
            owed.update({key: (version, now) for key, (version, _) in owed.items()})

    def late_s(self, kind: Kind) -> float:
        """Return for how long the watch has owed something that a list has shown."""
        now = self._clock()
        return max((now - since for _, since in self._behind[kind].values()), default=0.0)

    def _note(self, kind: Kind, key: Key, version: int, now: float) -> None:
        """Hold the watch to what a list brought that nothing else had."""
        known = self._objects[kind].get(key)
        newest = version_of(known) if known else self._gone[kind].get(key, 0)
        if newest < version:
            self._behind[kind].setdefault(key, (version, now))

    def _take(self, kind: Kind, key: Key, version: int, body: Body | None) -> None:
        """The newest version wins. What nobody reads is not kept: there are thousands of objects."""
        objects = self._objects[kind]
        old = objects.get(key)
        if version <= self._gone[kind].get(key, 0) or (old is not None and version_of(old) > version):
            return
        if body is None:
            self._gone[kind][key] = version
            if old is not None:
                del objects[key]
                self._file(kind, old, None)
                self._changed(kind, old, None)
        elif old is None or version_of(old) < version:
            kept = objects[key] = _essence(kind, body)
            self._file(kind, old, kept)
            self._changed(kind, old, kept)

    def _file(self, kind: Kind, old: Body | None, new: Body | None) -> None:
        """Keep `pods` true. Labels can be changed, so that a pod is another fleet's."""
        if kind != "pod":
            return
        for body, there in ((old, False), (new, True)):
            place = place_of(body) if body is not None else None
            if body is None or place is None:
                continue
            keys = self._pods_of.setdefault(place.fleet, set())
            (keys.add if there else keys.discard)(key_of(body))
            if not keys:
                del self._pods_of[place.fleet]


def _essence(kind: Kind, body: Body) -> Body:
    """Return an object without who has written which of its fields; of a node only how it is."""
    meta = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
    if kind == "node":
        return {"metadata": meta, "status": {"conditions": body.get("status", {}).get("conditions", [])}}
    return body | {"metadata": meta}
