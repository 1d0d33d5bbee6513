"""The pods of one namespace, watched by a test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from clusterkit.api import Api, Object
from clusterkit.kubectl import Kubectl
from clusterkit.waiting import until

_EVERY_S = 0.03


def container(pod: Object) -> Object:
    """Return the status of a pod's first container. Raises LookupError while nobody has told it."""
    return dict(pod["status"]["containerStatuses"][0])


def condition(seen: Object, kind: str) -> tuple[str, str]:
    """Return the status and the reason of any object's condition. Raises LookupError where there is none."""
    for found in seen["status"].get("conditions", []):
        if found["type"] == kind:
            return found["status"], found.get("reason", "")
    raise LookupError(f"{seen['metadata']['name']} has no condition {kind}")


class Pods:
    """Makes pods and waits for what becomes of them. A check that raises LookupError holds "not yet"."""

    def __init__(self, api: Api, kubectl: Kubectl) -> None:
        self._api, self._kubectl = api, kubectl
        self.namespace = kubectl.namespace

    def path(self, name: str) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods/{name}"

    async def make(self, *manifests: Mapping[str, Any]) -> None:
        await self._kubectl.apply(list(manifests))

    async def see(self, name: str, holds: Callable[[Object], Any], what: str) -> Object:
        """Wait until something holds of a pod; return the pod as it was then."""

        async def look() -> Object | None:
            pod = await self._api.get(self.path(name))
            return pod if holds(pod) else None

        found = await until(look, f"pod {name}: {what}", every_s=_EVERY_S)
        assert found is not None
        return found

    async def ready(self, name: str) -> Object:
        return await self.see(name, lambda pod: condition(pod, "Ready")[0] == "True", "ready")

    async def waits(self, name: str, *reasons: str) -> Object:
        """Wait until the container waits, for one of the reasons; return its state."""
        found = await self.see(
            name, lambda pod: container(pod)["state"].get("waiting", {}).get("reason") in reasons, str(reasons)
        )
        return dict(container(found)["state"]["waiting"])

    async def gone(self, name: str) -> None:
        async def look() -> bool:
            return await self._api.find(self.path(name)) is None

        await until(look, f"pod {name} is gone", every_s=_EVERY_S)
