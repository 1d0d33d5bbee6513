"""A node without a kubelet: registered, heart-beating, and running its pods' containers as processes of this machine.

It stands in where no container runtime can be had. What a controller sees of it is what it sees of a real one: the Node
and its Lease, pods' phases, conditions and container states, restarts, deletions in two steps. What is not there:
images (an entry of a map says what to run instead), isolation, limits, Services, and a file system for each container
(paths of mounts are replaced in args and env).

Faults are ordered by a test: `kill`, `freeze`, `evict`, `partition`, `crash`, `heal`, `drop`.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import aiohttp

from clusterkit.api import STRATEGIC, UNREACHABLE, ApiError, Object
from clusterkit.cluster import Cluster
from clusterkit.node.addresses import Addresses
from clusterkit.node.container import Container
from clusterkit.node.pod import Pod
from clusterkit.node.settings import Capacity, Image, Times
from clusterkit.node.site import Site
from clusterkit.node.status import stamp
from clusterkit.waiting import until

_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_PRESSURES = ("MemoryPressure", "DiskPressure", "PIDPressure")
LOW_MEMORY = "The node was low on resource: memory."


class Node:
    """Used by `async with`: on the way in it is schedulable, on the way out it and its pods are gone."""

    def __init__(
        self,
        cluster: Cluster,
        folder: Path,
        images: Mapping[str, Image],
        *,
        name: str | None = None,
        capacity: Capacity | None = None,
        labels: Mapping[str, str] | None = None,
        times: Times | None = None,
        addresses: int = 253,
    ) -> None:
        self.name = name or f"standin-{secrets.token_hex(3)}"
        self.images = dict(images)
        self.pods: dict[str, Pod] = {}
        """By uid; those of which the API server knows, or knew when the network was cut."""
        self._cluster = cluster
        self._folder = folder / self.name
        self._capacity = capacity or Capacity()
        self._labels = dict(labels or {})
        self._times = times or Times()
        self._addresses = Addresses(addresses)
        self._api = cluster.api()
        self._site: Site | None = None
        self._online: list[asyncio.Task[None]] = []
        self._ends: set[asyncio.Task[None]] = set()
        self._past: list[Pod] = []

    async def __aenter__(self) -> Self:
        self._folder.mkdir(parents=True)
        await self._api.__aenter__()
        http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True, limit=0))
        self._site = Site(self.name, self._api, http, self.images, self._times, self._folder, self._addresses)
        try:
            await self._register()
            self._go_online()
            await until(self._schedulable, f"node {self.name} is schedulable", every_s=0.02)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
        if self.site.trouble:
            raise RuntimeError(f"node {self.name} had faults of its own") from self.site.trouble[0]

    @property
    def site(self) -> Site:
        assert self._site is not None
        return self._site

    @property
    def address(self) -> str:
        return self._addresses.host

    # --- what runs

    def pod(self, namespace: str, name: str) -> Pod:
        """Raises LookupError."""
        for pod in self.pods.values():
            if (pod.namespace, pod.name) == (namespace, name):
                return pod
        raise LookupError(f"no pod {namespace}/{name} on {self.name}")

    def pid(self, namespace: str, name: str, container: str | None = None) -> int:
        """Return the pid of a container (the first by default). Raises LookupError while it does not run."""
        return self._container(namespace, name, container).pid

    def log(self, namespace: str, name: str, container: str | None = None) -> str:
        """Return what the container's present process, or its last one, has written."""
        log = self._container(namespace, name, container).log
        return log.read_text(errors="replace") if log.exists() else ""

    def last_words(self) -> str:
        """Return the states and ends of logs of all pods that were ever here."""
        return "\n".join(pod.last_words() for pod in (*self._past, *self.pods.values()))

    # --- faults

    def kill(self, namespace: str, name: str, container: str | None = None, *, fate: str = "") -> None:
        """SIGKILL a container's process; it is restarted as its pod wants. `fate`: the reason told (OOMKilled)."""
        self._container(namespace, name, container).kill(fate)

    def freeze(self, namespace: str, name: str, container: str | None = None) -> None:
        """SIGSTOP: the process holds its memory and its sockets, and answers nothing."""
        self._container(namespace, name, container).send(signal.SIGSTOP)

    def thaw(self, namespace: str, name: str, container: str | None = None) -> None:
        self._container(namespace, name, container).send(signal.SIGCONT)

    async def evict(self, namespace: str, name: str, message: str = LOW_MEMORY) -> None:
        """End a pod as under node pressure: Failed, Evicted, and still there. (The eviction API is `kubectl drain`.)"""
        await self.pod(namespace, name).evict(message)

    async def partition(self) -> None:
        """Cut the node from the API server: no heartbeats, nothing heard, nothing told; its processes live on."""
        self.site.connected.clear()
        await self._go_offline()

    async def crash(self) -> None:
        """Switch the machine off: every process dies, nobody is told."""
        await self.partition()
        self.site.powered.clear()
        await asyncio.gather(*(pod.kill() for pod in self.pods.values()))

    async def heal(self) -> None:
        """Back on the network, and switched on: pods deleted meanwhile are ended, the others told anew."""
        self.site.powered.set()
        self.site.connected.set()
        await self._set_ready()
        self._go_online()

    async def drop(self) -> None:
        """Switch the machine off for good and have the cluster forget it, as a cloud does."""
        await self.crash()
        for pod in list(self.pods.values()):
            await self._forget(pod)
        await self._api.delete(f"/api/v1/nodes/{self.name}")

    async def close(self) -> None:
        """End all processes at once and delete the node with its pods."""
        await self._go_offline()
        await asyncio.gather(*(self._forget(pod) for pod in list(self.pods.values())), *self._ends)
        with suppress(*UNREACHABLE, ApiError):
            for pod in await self._api.list("/api/v1/pods", fieldSelector=f"spec.nodeName={self.name}"):
                metadata = pod["metadata"]
                await self._api.delete(f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}", grace_s=0)
            await self._api.delete(f"{_LEASES}/{self.name}")
            await self._api.delete(f"/api/v1/nodes/{self.name}")
        await self.site.http.close()
        await self._api.__aexit__()
        self._addresses.close()

    # --- the network side

    def _go_online(self) -> None:
        self._online = [self.site.start(self._beat(), "heartbeats"), self.site.start(self._follow(), "pods")]

    async def _go_offline(self) -> None:
        for task in self._online:
            task.cancel()
        await asyncio.gather(*self._online, return_exceptions=True)
        self._online = []

    async def _beat(self) -> None:
        """Renew the lease, which is what the node lifecycle controller listens for.

        Who was not heard for a while (the API server may have been gone) must say that it is ready again.
        """
        while True:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            with suppress(*UNREACHABLE, ApiError):
                await self._api.patch(f"{_LEASES}/{self.name}", {"spec": {"renewTime": now}})
                if not await self._counts_as_ready():
                    await self._set_ready()
            await asyncio.sleep(self._times.heartbeat)

    async def _follow(self) -> None:
        """Keep `pods` to what is bound to this node."""
        async for kind, items in self._api.follow("/api/v1/pods", fieldSelector=f"spec.nodeName={self.name}"):
            for item in items:
                if kind == "DELETED":
                    self._gone(item["metadata"]["uid"])
                else:
                    self._see(item)
            if kind == "LIST":
                for uid in self.pods.keys() - {item["metadata"]["uid"] for item in items}:
                    self._gone(uid)

    def _see(self, seen: Object) -> None:
        uid = seen["metadata"]["uid"]
        if uid in self.pods:
            self.pods[uid].update(seen)
        elif seen["status"].get("phase") not in {"Succeeded", "Failed"} or "deletionTimestamp" in seen["metadata"]:
            self.pods[uid] = Pod(seen, self.site)

    def _gone(self, uid: str) -> None:
        if uid in self.pods:
            self._ends.add(task := self.site.start(self._forget(self.pods[uid]), f"end of {uid}"))
            task.add_done_callback(self._ends.discard)

    async def _forget(self, pod: Pod) -> None:
        self.pods.pop(pod.uid, None)
        self._past.append(pod)
        await pod.removed()

    # --- what the node says of itself

    async def _register(self) -> None:
        host = {"kubernetes.io/hostname": self.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        resources = self._capacity.resources()
        await self._api.create(
            "/api/v1/nodes",
            {
                "metadata": {"name": self.name, "labels": {**host, **self._labels}},
                "status": {
                    "capacity": resources,
                    "allocatable": resources,
                    "addresses": [
                        {"type": "InternalIP", "address": self._addresses.host},
                        {"type": "Hostname", "address": self.name},
                    ],
                    "conditions": self._conditions(),
                    "nodeInfo": _NODE_INFO,
                },
            },
        )
        spec = {"holderIdentity": self.name, "leaseDurationSeconds": round(4 * self._times.heartbeat)}
        await self._api.create(_LEASES, {"metadata": {"name": self.name}, "spec": spec})

    async def _set_ready(self) -> None:
        """Contradict the node lifecycle controller, which took the pods' readiness along with the node's."""
        path = f"/api/v1/nodes/{self.name}/status"
        await self._api.patch(path, {"status": {"conditions": self._conditions()}}, STRATEGIC)
        for pod in self.pods.values():
            pod.tell_again()

    def _conditions(self) -> list[Object]:
        times = {"lastHeartbeatTime": stamp(), "lastTransitionTime": stamp()}
        fine = [
            {"type": kind, "status": "False", "reason": "KubeletHasNoPressure", "message": "", **times}
            for kind in _PRESSURES
        ]
        return [*fine, {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready", **times}]

    async def _counts_as_ready(self) -> bool:
        conditions = (await self._api.get(f"/api/v1/nodes/{self.name}"))["status"]["conditions"]
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    async def _schedulable(self) -> bool:
        """A new node is tainted until the node lifecycle controller has seen it ready."""
        return not (await self._api.get(f"/api/v1/nodes/{self.name}"))["spec"].get("taints")

    # --- small things

    def _container(self, namespace: str, name: str, container: str | None) -> Container:
        return self.pod(namespace, name).container(container)


_NODE_INFO = {
    "architecture": "amd64",
    "bootID": "",
    "containerRuntimeVersion": "standin://1",
    "kernelVersion": "",
    "kubeProxyVersion": "",
    "kubeletVersion": "v1.34.0-standin",
    "machineID": "",
    "operatingSystem": "linux",
    "osImage": "processes of one machine",
    "systemUUID": "",
}
