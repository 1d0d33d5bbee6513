"""From pods to the plan's instances, and to what keeps those from serving that do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from berth_operator.kube import labels
from berth_operator.kube.pods import PORT
from berth_operator.kube.store import Body
from berth_operator.model import Instance, Ready

MESSAGE_MOST = 1000
"""Characters of a container's last words: enough for an error, not a log."""
BACK_OFF = "CrashLoopBackOff"
"""What a container waits for that has ended more than once lately."""
PATIENCE_S = 60.0
"""What a scheduler may take to look at a pod, and then a node until containers can start: volumes are there in seconds,
images are pulled afterwards."""


class Heard(NamedTuple):
    """A worker's word, and the start of its container that gave it: another start is another worker."""

    start: str
    ready: Ready


class Trouble(NamedTuple):
    """Why a pod does not serve: a reason for programs and the cluster's own words for people."""

    reason: str
    message: str


@dataclass(frozen=True)
class Clock:
    """What an observer takes the time by."""

    now: float
    gone_s: float
    """How long after its grace period a pod is given up whose node says nothing."""


def is_ending(pod: Body) -> bool:
    """Whether it was told to end."""
    return "deletionTimestamp" in pod["metadata"]


def ended(pod: Body) -> bool:
    """Whether a pod is over and will not run again: it is only an object any more."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def url_of(pod: Body) -> str | None:
    """Return where its worker listens; None while it has no address."""
    address = pod.get("status", {}).get("podIP")
    if not address:
        return None
    return f"http://[{address}]:{PORT}" if ":" in address else f"http://{address}:{PORT}"


def start_of(pod: Body) -> str | None:
    """Name the present start of its container; None while that does not run."""
    worker = _worker(pod)
    if worker is None or "running" not in worker.get("state", {}):
        return None
    return f"{worker.get('containerID', '')}@{worker['state']['running'].get('startedAt', '')}"


def is_ready(pod: Body) -> bool:
    """Whether its machine says that the worker answers."""
    return _condition(pod, "Ready").get("status") == "True"


def instance(pod: Body, node: Body | None, heard: Mapping[str, Heard], owner: str | None, clock: Clock) -> Instance:
    """Return the pod as the plan sees it. `owner` is the uid of the fleet; a pod of another one is on its way out.

    Raises ValueError for a pod that is none of ours.
    """
    meta = pod["metadata"]
    place = labels.place_of(pod)
    if place is None:
        raise ValueError(f"pod {meta['namespace']}/{meta['name']} has none of our labels")
    start, word = start_of(pod), heard.get(meta["uid"])
    ready = word.ready if word is not None and word.start == start else None
    silent = silent_since(node)
    told_at = _time(meta.get("deletionTimestamp"))
    return Instance(
        place,
        meta["uid"],
        started_at=_began(pod, clock.now),
        ready=ready,
        unhealthy_since=_unhealthy_since(pod, silent) if ready else silent,
        stopping=told_at is not None or owner not in _owners(pod),
        running=start is not None or silent is not None,
        unreachable=silent is not None,
        given_up=told_at is not None and silent is not None and clock.now - told_at >= clock.gone_s,
    )


def trouble(pod: Body, now: float) -> Trouble | None:
    """Return what keeps a pod from serving, as far as that is more than patience."""
    scheduled, made = _condition(pod, "PodScheduled"), _time(pod["metadata"].get("creationTimestamp"))
    if not scheduled and made is not None and now - made >= PATIENCE_S:
        who = pod["spec"].get("schedulerName", "default-scheduler")
        return Trouble("Unschedulable", f"no scheduler has looked at it: is there one called {who}?")
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return Trouble("Unschedulable", scheduled.get("message", "no node fits"))
    set_up = _condition(pod, "PodReadyToStartContainers")
    if set_up.get("status") == "False" and now - (_time(set_up.get("lastTransitionTime")) or now) >= PATIENCE_S:
        # Which of them it is stands in Events of the node's alone.
        name, lacking = pod["metadata"]["name"], "a Secret, a volume or the network is missing"
        return Trouble("PodConfig", f"its node cannot set up {name}: {lacking} (kubectl describe pod {name})")
    status = pod.get("status", {})
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        waiting = container.get("state", {}).get("waiting", {})
        reason, words = waiting.get("reason", ""), waiting.get("message", "")
        if "Image" in reason:
            return Trouble("ImagePull", f"{reason}: {words}"[:MESSAGE_MOST])
        if reason.endswith("Error"):
            return Trouble("PodConfig", f"{reason}: {words}"[:MESSAGE_MOST])
        over = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated") or {}
        if over.get("exitCode") and not container.get("ready") and (reason == BACK_OFF or not _served(pod, over)):
            last = (over.get("message") or over.get("reason") or "").strip().splitlines()
            said = last[-1] if last else "no last words"
            return Trouble("ModelLoadFailed", f"exit status {over['exitCode']}: {said}"[:MESSAGE_MOST])
    return None


def _served(pod: Body, run: Body) -> bool:
    """Whether a container's run that is over had got ready: one that never did leaves the pod unready all along."""
    unready, began = _time(_condition(pod, "Ready").get("lastTransitionTime")), _time(run.get("startedAt"))
    return unready is not None and began is not None and unready > began


def _worker(pod: Body) -> Body | None:
    statuses = pod.get("status", {}).get("containerStatuses", ())
    return next((each for each in statuses if each["name"] == "worker"), None)


def _condition(body: Body, type_: str) -> Body:
    conditions = body.get("status", {}).get("conditions", ())
    return next((each for each in conditions if each["type"] == type_), {})


def _owners(pod: Body) -> list[str]:
    return [owner["uid"] for owner in pod["metadata"].get("ownerReferences", ())]


def silent_since(node: Body | None) -> float | None:
    """Return since when a node has not been ready. One that is not known is a pod's that has none yet."""
    ready = _condition(node, "Ready") if node is not None else {}
    return None if ready.get("status") in ("True", None) else _time(ready.get("lastTransitionTime"))


def _began(pod: Body, now: float) -> float:
    """Return since when it could have got ready, on a machine. However old it is, a container that ends has that long
    again; and one that its machine finds ready is not to blame for that nobody has its word.
    """
    times = [_condition(pod, type_) for type_ in ("PodScheduled", "Ready")]
    if times[0].get("status") != "True" or is_ready(pod):
        return now
    return max(filter(None, (_time(each.get("lastTransitionTime")) for each in times)), default=now)


def _unhealthy_since(pod: Body, silent: float | None) -> float | None:
    ready = _condition(pod, "Ready")
    if ready.get("status") == "False":
        return _time(ready.get("lastTransitionTime"))
    return silent


def _time(text: Any) -> float | None:
    """Return an RFC 3339 time in seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp() if text else None
