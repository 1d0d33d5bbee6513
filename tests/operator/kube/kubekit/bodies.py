"""Objects as the API server shows them. What a test does not name is as in a cluster where all is well."""

from __future__ import annotations

from typing import Any

from berth_operator.kube import labels
from berth_operator.kube.conditions import timestamp
from berth_operator.kube.store import Body
from berth_operator.model import FleetKey, Place
from kubekit.clock import START

NAMESPACE = "team"
FLEET = FleetKey(NAMESPACE, "tiny")
REVISION = "0a1b2c3d"
STARTED = timestamp(START - 100)


def meta(name: str, uid: str, *, namespace: str = NAMESPACE, version: int = 1, **more: Any) -> Body:
    return {"name": name, "namespace": namespace, "uid": uid, "resourceVersion": str(version), **more}


def fleet(
    name: str = "tiny", *, uid: str = "fleet-1", version: int = 1, status: Body | None = None, **spec: Any
) -> Body:
    body: Body = {
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "InferenceFleet",
        "metadata": meta(name, uid, version=version, generation=1),
        "spec": {"model": {"builtin": "berth-tiny"}, "slots": 4, **spec},
    }
    return body | ({"status": status} if status else {})


def session(
    name: str = "alice", *, uid: str = "session-1", version: int = 1, status: Body | None = None, **spec: Any
) -> Body:
    body: Body = {
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "StreamingSession",
        "metadata": meta(name, uid, version=version, generation=1),
        "spec": {"fleet": "tiny", **spec},
    }
    return body | ({"status": status} if status else {})


def node(name: str = "node-1", *, version: int = 1, ready: str = "True", since: str = STARTED) -> Body:
    body = {"metadata": meta(name, f"uid-{name}", version=version)}
    del body["metadata"]["namespace"]
    return body | {"status": {"conditions": [condition("Ready", ready, since)]}}


def condition(type_: str, status: str, since: str = STARTED, **more: str) -> Body:
    return {"type": type_, "status": status, "lastTransitionTime": since, **more}


def pod(
    ordinal: int = 0,
    *,
    uid: str = "",
    version: int = 1,
    revision: str = REVISION,
    owner: str | None = "fleet-1",
    fleet: FleetKey = FLEET,
    **status: Any,
) -> Body:
    """Return a pod that nobody has scheduled yet; `status` adds to what is said of it."""
    place = Place(fleet, ordinal, revision)
    owners = [{"kind": "InferenceFleet", "name": fleet.name, "uid": owner, "controller": True}] if owner else []
    known = meta(str(place), uid or f"pod-{ordinal}", namespace=fleet.namespace, version=version)
    return {
        "metadata": known | {"labels": labels.of(place), "ownerReferences": owners},
        "spec": {},
        "status": {"phase": "Pending", **status},
    }


def unschedulable(words: str = "0/3 nodes are available: 3 Insufficient cpu.", **which: Any) -> Body:
    refused = condition("PodScheduled", "False", reason="Unschedulable", message=words)
    return pod(**which, conditions=[refused])


def waiting(
    reason: str, words: str = "", *, last: Body | None = None, init: bool = False, since: str = STARTED, **which: Any
) -> Body:
    """Return a scheduled pod of which one container waits, for a reason of the kubelet's."""
    said = {"name": "fetch" if init else "worker", "ready": False, "state": {"waiting": {"reason": reason}}}
    if words:
        said["state"]["waiting"]["message"] = words
    if last is not None:
        said["lastState"] = {"terminated": last}
    return _on_node(which, [said], init=init, since=since)


def running(*, start: str = STARTED, ready: bool = True, since: str = STARTED, **which: Any) -> Body:
    """Return a pod whose worker runs, since `start`, and is ready or not `since`."""
    said = {
        "name": "worker",
        "ready": ready,
        "containerID": f"containerd://{start}",
        "state": {"running": {"startedAt": start}},
    }
    return _on_node(which, [said], ready=ready, since=since)


def _on_node(
    which: dict[str, Any], containers: list[Body], *, init: bool = False, ready: bool = False, since: str = STARTED
) -> Body:
    scheduled_at = which.pop("scheduled", STARTED)
    phase = "Pending" if init else "Running"
    body = pod(
        **which,
        phase=phase,
        podIP=f"10.0.0.{which.get('ordinal', 0) + 1}",
        conditions=[condition("PodScheduled", "True", scheduled_at), condition("Ready", str(ready), since)],
    )
    body["spec"]["nodeName"] = "node-1"
    body["status"]["initContainerStatuses" if init else "containerStatuses"] = containers
    return body


def deleted(body: Body, at: str) -> Body:
    """Return the object as one that was told to end, by `at` at the latest."""
    return body | {"metadata": body["metadata"] | {"deletionTimestamp": at}}


def ended(reason: str = "Evicted", words: str = "The node was low on memory.", **which: Any) -> Body:
    """Return a pod that is over, and of which only the object is left."""
    return pod(**which, phase="Failed", reason=reason, message=words)
