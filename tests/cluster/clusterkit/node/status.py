"""A pod's status, from what its containers do. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from clusterkit.api import Object


def stamp(when: datetime | None = None) -> str:
    """Return a time as Kubernetes writes it."""
    return (when or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class ContainerStatus:
    """What is told of one container. `state` and `last` have one key: waiting, running or terminated."""

    name: str
    image: str
    state: Object
    last: Object = field(default_factory=dict)
    restarts: int = 0
    started: bool = False
    ready: bool = False
    id: str = ""

    @property
    def exit_code(self) -> int | None:
        """None while it has not ended."""
        found: int | None = self.state.get("terminated", {}).get("exitCode")
        return found

    @property
    def has_run(self) -> bool:
        return self.id != ""

    def told(self) -> Object:
        return {
            "name": self.name,
            "image": self.image,
            "imageID": self.image if self.has_run else "",
            "containerID": self.id,
            "state": self.state,
            "lastState": self.last,
            "restartCount": self.restarts,
            "started": self.started,
            "ready": self.ready,
        }


def waiting(reason: str, message: str = "") -> Object:
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}


@dataclass(frozen=True)
class Verdict:
    """The node's own end of a pod, whatever its containers did: Evicted, or what it cannot run."""

    reason: str
    message: str


def phase(
    init: Sequence[ContainerStatus],
    main: Sequence[ContainerStatus],
    *,
    policy: str,
    leaving: bool,
    verdict: Verdict | None,
) -> str:
    """Return the pod's phase. A pod that is being deleted is restarted no more: its containers' ends are final."""
    codes = [status.exit_code for status in main]
    final = leaving or policy != "Always"
    if verdict is not None:
        return "Failed"
    if final and any(status.exit_code for status in init) and (leaving or policy == "Never"):
        return "Failed"
    if final and all(code is not None for code in codes):
        failed = [code for code in codes if code]
        if not failed:
            return "Succeeded"
        return "Failed" if leaving or policy == "Never" else "Running"
    return "Running" if all(status.has_run for status in main) else "Pending"


class Conditions:
    """A pod's conditions of which the kubelet is the author; their times move when they flip, only then."""

    def __init__(self) -> None:
        self._known: dict[str, Object] = {}

    def update(self, found: Mapping[str, tuple[bool, str, str]], now: str) -> list[Object]:
        """Take what holds now, `type: (holds, reason, message)`, and return the conditions."""
        for kind, (holds, reason, message) in found.items():
            status = "True" if holds else "False"
            before = self._known.get(kind, {})
            since = before["lastTransitionTime"] if before.get("status") == status else now
            # None removes what was said before: the API server merges conditions by type.
            self._known[kind] = {
                "type": kind,
                "status": status,
                "lastTransitionTime": since,
                "reason": reason or None,
                "message": message or None,
            }
        return list(self._known.values())


def conditions(
    init: Sequence[ContainerStatus], main: Sequence[ContainerStatus], *, phase: str, gates_open: bool, sandbox: bool
) -> dict[str, tuple[bool, str, str]]:
    """Return what holds of a pod in `phase`, for `Conditions.update`."""
    initialized = all(status.exit_code == 0 for status in init)
    unready = [status.name for status in main if not status.ready]
    ended = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(phase, "")
    lacking = [status.name for status in init if status.exit_code != 0]
    why = ended or "ContainersNotReady"
    message = "" if ended else f"containers with unready status: [{' '.join(unready)}]"
    ready = (True, "", "") if not unready and not ended else (False, why, message)
    uninitialized = (False, "ContainersNotInitialized", f"containers with incomplete status: [{' '.join(lacking)}]")
    return {
        "PodReadyToStartContainers": (sandbox, "", ""),
        "Initialized": (True, "", "") if initialized else uninitialized,
        "ContainersReady": ready,
        "Ready": ready if gates_open or not ready[0] else (False, "ReadinessGatesNotReady", ""),
    }
