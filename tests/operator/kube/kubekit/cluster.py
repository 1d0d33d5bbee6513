"""An API server of dictionaries: versions grow, uids differ, pods have the names they have once, watches lag."""

from __future__ import annotations

import copy
import itertools
from collections import deque
from typing import Any

from berth_operator.errors import ClusterConflict, ClusterRefused, ClusterUnavailable
from berth_operator.kube.store import Body, Key, Kind, Listing, Store, key_of
from kubekit.clock import Clock


class FakeCluster:
    """Stands in for `Cluster`. `calls` has what was asked; `breaks` lets the next calls of a name fail."""

    def __init__(self, clock: Clock) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.events: dict[str, Body] = {}
        self._clock = clock
        self._objects: dict[tuple[Kind, Key], Body] = {}
        self._versions = itertools.count(100)
        self._version = 99
        self._uids = itertools.count(1)
        self._untold: deque[tuple[Kind, Body, bool]] = deque()
        self._faults: dict[str, deque[Exception]] = {}

    # What a test does -----------------------------------------------------------------------------------------------

    def put(self, kind: Kind, body: Body) -> Body:
        """Have an object so, as somebody else than the operator."""
        self._version = next(self._versions)
        made = copy.deepcopy(body)
        made["metadata"]["resourceVersion"] = str(self._version)
        self._objects[kind, key_of(made)] = made
        self._untold.append((kind, copy.deepcopy(made), False))
        return made

    def remove(self, kind: Kind, name: str, namespace: str = "team") -> None:
        """Have an object gone."""
        self._version = next(self._versions)
        gone = self._objects.pop((kind, Key(namespace, name)))
        gone["metadata"]["resourceVersion"] = str(self._version)
        self._untold.append((kind, gone, True))

    def get(self, kind: Kind, name: str, namespace: str = "team") -> Body | None:
        return self._objects.get((kind, Key(namespace, name)))

    def all(self, kind: Kind) -> list[Body]:
        return [body for (each, _), body in self._objects.items() if each == kind]

    def tell(self, store: Store) -> None:
        """Let the watch catch up."""
        while self._untold:
            kind, body, gone = self._untold.popleft()
            store.heard(kind, body, deleted=gone)

    def lose_watch(self) -> None:
        """Let what has not been told yet never be told."""
        self._untold.clear()

    def breaks(self, call: str, error: Exception | None = None, *, times: int = 1) -> None:
        error = error or ClusterUnavailable("the API server does not answer: fault of the test")
        self._faults.setdefault(call, deque()).extend([error] * times)

    def mended(self) -> None:
        self._faults.clear()

    def made(self, call: str) -> list[tuple[Any, ...]]:
        """Return the calls of a name, without it."""
        return [rest for name, *rest in self.calls if name == call]  # type: ignore[misc]

    # What the operator does -----------------------------------------------------------------------------------------

    async def list(self, kind: Kind, namespace: str | None) -> Listing:
        self._called("list", kind, namespace)
        bodies = [
            copy.deepcopy(body)
            for (each, key), body in self._objects.items()
            if each == kind and namespace in (None, key.namespace)
        ]
        return Listing(self._version, bodies)

    async def create_pod(self, namespace: str, pod: Body) -> Body:
        name = pod["metadata"]["name"]
        self._called("create_pod", name)
        if ("pod", Key(namespace, name)) in self._objects:
            raise ClusterConflict(f'pods "{name}" already exists', status=409)
        meta = pod["metadata"] | {"uid": f"uid-{next(self._uids)}", "creationTimestamp": self._clock.stamp()}
        return self.put("pod", pod | {"metadata": meta, "status": {"phase": "Pending"}})

    async def delete_pod(self, namespace: str, name: str, *, uid: str, grace_s: int | None = None) -> None:
        self._called("delete_pod", name, grace_s)
        body = self.get("pod", name, namespace)
        if body is None or body["metadata"]["uid"] != uid:
            return
        if grace_s == 0:
            self.remove("pod", name, namespace)
        else:
            grace = body["spec"].get("terminationGracePeriodSeconds", 30) if grace_s is None else grace_s
            body["metadata"]["deletionTimestamp"] = self._clock.stamp(-grace)
            self.put("pod", body)

    async def patch_status(self, kind: Kind, body: Body, status: Body) -> Body:
        key = key_of(body)
        self._called("patch_status", kind, key.name, status)
        there = self._objects.get((kind, key))
        if there is None:
            raise ClusterRefused(f"{key} not found", status=404)
        if there["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            raise ClusterConflict("the object has been modified", status=409)
        merged = {**there.get("status", {}), **status}
        return self.put(kind, there | {"status": {name: value for name, value in merged.items() if value is not None}})

    async def create_event(self, namespace: str, event: Body) -> bool:
        name = event["metadata"]["name"]
        self._called("create_event", event["reason"], event["message"])
        if name in self.events:
            return False
        self.events[name] = event
        return True

    def _called(self, call: str, *what: Any) -> None:
        self._clock.call()
        self.calls.append((call, *what))
        if faults := self._faults.get(call):
            raise faults.popleft()
