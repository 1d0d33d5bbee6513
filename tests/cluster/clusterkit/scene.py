"""A namespace with Berth beside it: what most tests of the operator begin with.

await scene.fleet("tiny", replicas=2)
await scene.session("alice")
await scene.ready("ssn/alice")
told = await turn(scene.client, "alice", body)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import aiohttp

from clusterkit.api import Api, Object
from clusterkit.kubectl import Kubectl
from clusterkit.node.node import Node
from clusterkit.platform import Platform
from clusterkit.waiting import until
from fleetkit.client import Client

VERSION = "berth.dev/v1alpha1"
READY_S = 180.0
"""A worker starts in seconds; several at once on a busy machine take their time."""


@dataclass(frozen=True)
class Scene:
    """One test's world. `node` is the one it begins with."""

    platform: Platform
    namespace: str
    api: Api
    kubectl: Kubectl
    node: Node
    http: aiohttp.ClientSession

    @property
    def client(self) -> Client:
        """A client of the first gateway, in this namespace."""
        return Client(self.http, self.platform.url, namespace=self.namespace)

    def within(self, namespace: str) -> Scene:
        """The same in another of the platform's namespaces."""
        return replace(self, namespace=namespace, kubectl=self.kubectl.within(namespace))

    async def fleet(self, name: str = "tiny", **spec: Any) -> None:
        """Apply a fleet of the built-in model."""
        await self.kubectl.apply(fleet(name, **spec))

    async def session(self, *names: str, **spec: Any) -> None:
        """Apply sessions."""
        await self.kubectl.apply([session(name, **spec) for name in names])

    async def ready(self, *what: str, timeout_s: float = READY_S) -> None:
        """Wait until resources such as `ifl/tiny` and `ssn/alice` are Ready."""
        for one in what:
            await self.kubectl.wait(one, "condition=Ready", timeout_s)

    async def pods(self, fleet: str = "tiny") -> list[Object]:
        """A fleet's pods that were not told to end, by name."""
        found = await self.kubectl.items("pods", "-l", f"berth.dev/fleet={fleet}")
        live = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
        return sorted(live, key=lambda pod: str(pod["metadata"]["name"]))

    async def pod_of(self, session: str) -> str:
        """The name of the pod whose slot a session holds. Raises LookupError where it holds none."""
        worker = (await self.client.session(session))["worker"] or ""
        for pod in await self.kubectl.items("pods"):
            if pod["metadata"]["uid"] == worker.partition(".")[0]:
                return str(pod["metadata"]["name"])
        raise LookupError(f"{session} holds no slot ({worker or None})")

    async def status(self, what: str) -> Object:
        """The status of `ssn/alice`."""
        found: Object = (await self.kubectl.get(what)).get("status", {})
        return found

    async def condition(self, what: str, type_: str = "Ready") -> tuple[str, str, str]:
        """A condition's status, reason and message; empty where there is none."""
        conditions = (await self.status(what)).get("conditions", [])
        found = next((one for one in conditions if one["type"] == type_), {})
        return found.get("status", ""), found.get("reason", ""), found.get("message", "")

    async def reason(self, what: str, wanted: str, type_: str = "Ready", timeout_s: float = READY_S) -> str:
        """Wait until a condition has this reason; return its message."""

        async def so() -> bool:
            return (await self.condition(what, type_))[1] == wanted

        await until(so, f"{what} is {type_} by reason {wanted}", timeout_s)
        return (await self.condition(what, type_))[2]

    async def settled(self, fleet: str = "tiny", timeout_s: float = READY_S) -> None:
        """Wait until a fleet is as its spec wants it: all of one revision, all serving, nobody leaving."""

        async def so() -> bool:
            found = await self.kubectl.get(f"ifl/{fleet}")
            status = found["status"]
            kinds = {condition["type"]: condition["status"] for condition in status["conditions"]}
            left = await self.kubectl.items("pods", "-l", f"berth.dev/fleet={fleet}")
            return (
                bool(status["observedGeneration"] == found["metadata"]["generation"])
                and kinds == {"Ready": "True"}
                and len(left) == status["desiredReplicas"]
            )

        await until(so, f"ifl/{fleet} is settled", timeout_s)

    async def events(self, reason: str) -> list[Object]:
        """The namespace's Events of one reason."""
        return [event for event in await self.kubectl.items("events") if event["reason"] == reason]


def fleet(name: str, *, replicas: int | None = 1, **spec: Any) -> Object:
    """An InferenceFleet of the built-in model, small and on one thread a worker."""
    wanted: dict[str, Any] = {
        "model": {"builtin": "berth-tiny"},
        "engine": {"maxTotalTokens": 16384, "threads": 1},
        "slots": 8,
        "drainDeadline": "20s",
        **spec,
    }
    if replicas is not None and "autoscaling" not in wanted:
        wanted["replicas"] = replicas
    return {"apiVersion": VERSION, "kind": "InferenceFleet", "metadata": {"name": name}, "spec": wanted}


def session(name: str, *, fleet: str = "tiny", **spec: Any) -> Object:
    """A StreamingSession."""
    return {
        "apiVersion": VERSION,
        "kind": "StreamingSession",
        "metadata": {"name": name},
        "spec": {"fleet": fleet, **spec},
    }


def template(**fields: Any) -> Mapping[str, Any]:
    """What to change of a fleet to have its workers replaced: `scene.fleet(…, template=template(env=…))`."""
    return {"env": [{"name": name, "value": value} for name, value in fields.items()]}
