"""One pod on a stand-in node: its volumes, its containers in order, what is told of it, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from clusterkit.api import STRATEGIC, UNREACHABLE, ApiError, Object
from clusterkit.node import spec, status, volumes
from clusterkit.node.container import Container
from clusterkit.node.process import Deadline
from clusterkit.node.site import Site
from clusterkit.node.sources import NotThere, Sources
from clusterkit.node.spec import Unsupported
from clusterkit.node.status import Conditions, Verdict, stamp, waiting

_RETRY_S = 0.2
"""Between two tries to tell the API server something while it is not there."""


class Pod:
    """Lives from its start to its final deletion. `update` and `removed` carry what the API server says of it."""

    def __init__(self, seen: Object, site: Site) -> None:
        self.object = seen
        self.namespace: str = seen["metadata"]["namespace"]
        self.name: str = seen["metadata"]["name"]
        self.uid: str = seen["metadata"]["uid"]
        self.address = site.addresses.take()
        self.folder = site.folder / f"{self.namespace}_{self.name}_{self.uid[:8]}"
        self._site = site
        self._sources = Sources(site.api, seen, self.address, site.addresses.host)
        self._changed = asyncio.Event()
        self._init = self._containers("initContainers", init=True)
        self._main = self._containers("containers", init=False)
        if not self._init:
            for container in self._main:
                container.status.state = waiting("ContainerCreating")
        self._conditions = Conditions()
        self._verdict: Verdict | None = None
        self._mounted = False
        self._began = stamp()
        self._told: Object | None = None
        self._events: set[tuple[str, str]] = set()
        self._leaving = asyncio.Event()
        self._deadline: Deadline | None = None
        self._chores: set[asyncio.Task[Any]] = set()
        self.update(seen)
        self.life = site.start(self._live(), f"pod {self.namespace}/{self.name}")
        """Done when the pod is gone from the API server, or was cancelled by `removed`."""

    # --- what the API server says

    def update(self, seen: Object) -> None:
        """Take a newer version of the object: a deletion, or one with less grace."""
        self.object = seen
        if seen["metadata"].get("deletionTimestamp"):
            grace_s = spec.seconds_of_grace(seen)
            if self._deadline is None:
                self._deadline = Deadline(grace_s)
            self._deadline.shorten(grace_s)
            self._leaving.set()
        if self._told is not None and _ready(seen["status"]) != _ready(self._told):
            self.tell_again()  # the node may have been given up for a while, and its pods with it

    async def removed(self) -> None:
        """The object is gone: end everything now."""
        self.life.cancel()
        await asyncio.gather(self.life, *self._chores, return_exceptions=True)

    def tell_again(self) -> None:
        """Somebody else may have written our status: tell it all once more."""
        self._told = None
        self._changed.set()

    # --- what a test may order

    def container(self, name: str | None = None) -> Container:
        """Return a container; the first one by default. Raises LookupError."""
        for container in [*self._main, *self._init]:
            if name in {None, container.name}:
                return container
        raise LookupError(f"pod {self.name} has no container {name}")

    async def kill(self, *, again: bool = True) -> None:
        """SIGKILL to all containers, and wait until they are dead."""
        everyone = (*self._init, *self._main)
        for container in everyone:
            container.kill(again=again)
        await asyncio.gather(*(container.dead() for container in everyone))

    async def evict(self, message: str) -> None:
        """End the pod as a kubelet under pressure does: killed, Failed, and left for others to delete."""
        await self.kill(again=False)
        self._verdict = Verdict("Evicted", message)
        self._tell("Evicted", message)
        self._changed.set()

    def last_words(self) -> str:
        """Return what is known of every container, and the end of its log."""
        parts = []
        for container in (*self._init, *self._main):
            logs = sorted(container.log.parent.glob("*.log"))
            text = "\n".join(f"[{log.name}] {line}" for log in logs[-2:] for line in _tail(log))
            parts.append(f"--- {self.namespace}/{self.name} {container.name} {container.status.state}\n{text}")
        return "\n".join(parts)

    # --- its life

    async def _live(self) -> None:
        reporting = self._site.start(self._report(), f"reports of {self.name}")
        work = self._site.start(self._work(), f"work of {self.name}")
        try:
            await self._leaving.wait()
            await self._stop()
        finally:
            work.cancel()
            reporting.cancel()
            await asyncio.gather(work, reporting, return_exceptions=True)
            self._site.addresses.give_back(self.address)
        await self._leave()

    async def _work(self) -> None:
        """Do what the spec says; what this node cannot do fails the pod, and says so."""
        try:
            spec.check(self.object)
            await self._mount()
            for container in self._init:
                if await container.run():
                    return
            for container in self._main:
                container.status.state = waiting("ContainerCreating")
            await asyncio.gather(*(container.run() for container in self._main))
        except Unsupported as error:
            self._verdict = Verdict("UnsupportedByStandIn", f"a stand-in node knows no {error}")
            await self.kill(again=False)
        finally:
            self._changed.set()

    async def _mount(self) -> None:
        wanted = self.object["spec"].get("volumes", [])
        while True:
            await self._site.connected.wait()
            try:
                mounted = await volumes.mount(wanted, self.folder / "volumes", self._sources)
            except NotThere as error:
                self._tell("FailedMount", f"MountVolume.SetUp failed: {error}")
            except (*UNREACHABLE, ApiError):
                pass  # a kubelet waits for its API server too
            else:
                break
            await asyncio.sleep(self._site.times.pull)
        for container in (*self._init, *self._main):
            container.volumes = mounted
        self._mounted = True
        self._changed.set()

    async def _stop(self) -> None:
        assert self._deadline is not None
        deadline = self._deadline
        await asyncio.gather(*(container.stop(deadline) for container in (*self._init, *self._main)))

    async def _leave(self) -> None:
        """Tell the end, then have the object deleted: by its uid, for the next of its name is another's."""
        while True:
            await self._site.connected.wait()
            with suppress(*UNREACHABLE, ApiError):
                await self._push()
                await self._site.api.delete(self._path, grace_s=0, uid=self.uid)
                return
            await asyncio.sleep(_RETRY_S)

    # --- what is told

    @property
    def _path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"

    def status(self) -> Object:
        """Return the pod's status as of now."""
        init, main = ([container.status for container in some] for some in (self._init, self._main))
        phase = status.phase(
            init,
            main,
            policy=self.object["spec"].get("restartPolicy", "Always"),
            leaving=self._leaving.is_set(),
            verdict=self._verdict,
        )
        facts = status.conditions(init, main, phase=phase, gates_open=self._gates_open(), sandbox=self._mounted)
        found: Object = {
            "phase": phase,
            "conditions": self._conditions.update(facts, stamp()),
            "hostIP": self._sources.host_address,
            "hostIPs": [{"ip": self._sources.host_address}],
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "startTime": self._began,
            "containerStatuses": [container.told() for container in main],
        }
        if init:
            found["initContainerStatuses"] = [container.told() for container in init]
        if self._verdict is not None:
            found |= {"reason": self._verdict.reason, "message": self._verdict.message}
        return found

    def _gates_open(self) -> bool:
        gates = self.object["spec"].get("readinessGates", [])
        holding = {c["type"] for c in self.object["status"].get("conditions", []) if c["status"] == "True"}
        return all(gate["conditionType"] in holding for gate in gates)

    async def _report(self) -> None:
        self._changed.set()
        while True:
            await self._changed.wait()
            await self._site.connected.wait()
            self._changed.clear()
            try:
                await self._push()
            except (*UNREACHABLE, ApiError):
                self._changed.set()
                await asyncio.sleep(_RETRY_S)

    async def _push(self) -> None:
        """Tell the status where it differs from what was told last; a pod that is gone is told nothing."""
        now = self.status()
        if now == self._told:
            return
        try:
            await self._site.api.patch(
                f"{self._path}/status", {"metadata": {"uid": self.uid}, "status": now}, STRATEGIC
            )
        except ApiError as error:
            if error.status not in {404, 409}:
                raise
        self._told = now

    def _tell(self, reason: str, message: str) -> None:
        """Write an event, once for the same words."""
        if (reason, message) in self._events or not self._site.connected.is_set():
            return
        self._events.add((reason, message))
        path, now = f"/api/v1/namespaces/{self.namespace}/events", stamp()
        event = {
            "metadata": {"generateName": f"{self.name}-"},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "namespace": self.namespace,
                "name": self.name,
                "uid": self.uid,
            },
            "reason": reason,
            "message": message[:1024],
            "type": "Warning",
            "source": {"component": "kubelet", "host": self._site.name},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        self._chore(self._site.api.create(path, event))

    def _chore(self, work: Coroutine[Any, Any, Any]) -> None:
        async def quietly() -> None:
            with suppress(*UNREACHABLE, ApiError):
                await work

        task = asyncio.create_task(quietly())
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    def _containers(self, field: str, *, init: bool) -> list[Container]:
        return [
            Container(
                wanted,
                self._sources,
                self._site,
                self.folder / wanted["name"],
                tell=self._tell,
                changed=self._changed,
                init=init,
            )
            for wanted in self.object["spec"].get(field, [])
        ]


def _tail(log: Path) -> list[str]:
    return log.read_text(errors="replace").splitlines()[-15:]


def _ready(status: Object) -> str:
    return next((each["status"] for each in status.get("conditions", []) if each["type"] == "Ready"), "")
