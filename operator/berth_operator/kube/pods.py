"""From a fleet to the pods of its workers: what is in them, and the name of all that makes them what they are."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

from berth_api.crd import API_VERSION, EngineSettings, FleetSpec, InferenceFleet, seconds
from berth_operator.kube import labels
from berth_operator.kube.settings import PodSettings
from berth_operator.kube.store import Body
from berth_operator.model import FleetKey, Place

PORT = 8000
HEALTH = {"httpGet": {"path": "/health", "port": PORT}}
STARTUP_S, READINESS_S, LIVENESS_S = 2, 2, 10
"""Periods of the probes: the first two are felt by whoever waits, the last only finds what the gateways have left."""
GRACE_MARGIN_S = 15
"""What a worker has beyond the drain deadline to end, before it is killed."""
DRAINED_S = 5
"""What a worker has to end whose turns have been waited for: one that still runs has had its time, and moves."""
DEVICES = "/"
"""Resources with a domain in their name, such as nvidia.com/gpu, are devices."""
_MODEL, _TOKEN, _TMP = "/models", "/var/run/berth", "/tmp"  # noqa: S108 - inside the pod
_RESTRICTED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
_USER = 65532
"""Nobody's: the images are made for it."""


def key_of(fleet: InferenceFleet) -> FleetKey:
    return FleetKey(fleet.metadata["namespace"], fleet.metadata["name"])


def revision(fleet: InferenceFleet, settings: PodSettings, start_s: float) -> str:
    """Name what the fleet's pods are made from: pods of another revision are to be replaced.

    The drain deadline is left out: nobody wants all workers drained for that. Where the operator ends a pod it waits by
    itself, as long as the spec says then.
    """
    usual = FleetSpec.model_fields["drain_deadline"].default
    spec = _pod_spec(fleet.spec.model_copy(update={"drain_deadline": usual}), settings, start_s)
    template = fleet.spec.template
    content = json.dumps([spec, template.labels, template.annotations], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:8]


def pod(fleet: InferenceFleet, place: Place, settings: PodSettings, start_s: float) -> Body:
    """Return the manifest of the pod at `place`; its owner is the fleet, with which it goes."""
    template = fleet.spec.template
    owner = {
        "apiVersion": API_VERSION,
        "kind": "InferenceFleet",
        "name": place.fleet.name,
        "uid": fleet.metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": False,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": str(place),
            "namespace": place.fleet.namespace,
            "labels": {**template.labels, **labels.of(place)},
            "annotations": dict(template.annotations),
            "ownerReferences": [owner],
        },
        "spec": _pod_spec(fleet.spec, settings, start_s),
    }


def grace_s(spec: FleetSpec) -> int:
    """Return how long a pod may take to end, in seconds."""
    return math.ceil(seconds(spec.drain_deadline)) + GRACE_MARGIN_S


def wants_devices(spec: FleetSpec) -> bool:
    """Whether its workers ask for GPUs or the like, which are rarely there twice."""
    resources = spec.template.resources
    return any(DEVICES in name for name in (*resources.requests, *resources.limits))


def _pod_spec(spec: FleetSpec, settings: PodSettings, start_s: float) -> dict[str, Any]:
    image = spec.template.image or settings.image
    model, volume, fetch = _model(spec, image)
    volumes = [
        {"name": "token", "secret": {"secretName": settings.token_secret}},
        {"name": "tmp", "emptyDir": {}},
        *volume,
    ]
    mounts = [
        {"name": "token", "mountPath": _TOKEN, "readOnly": True},
        {"name": "tmp", "mountPath": _TMP},
        *({"name": each["name"], "mountPath": _MODEL, "readOnly": True} for each in volume),
    ]
    worker = {
        "name": "worker",
        "image": image,
        **_pull(spec),
        "args": _args(spec, model),
        "env": [
            {"name": "POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            *_env(spec),
        ],
        "ports": [{"name": "http", "containerPort": PORT}],
        "resources": _dump(spec.template.resources),
        "volumeMounts": mounts,
        "securityContext": _RESTRICTED,
        # What a worker says last is why it ended: `kubectl describe` and the fleet's conditions show it.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "startupProbe": {**HEALTH, "periodSeconds": STARTUP_S, "failureThreshold": math.ceil(start_s / STARTUP_S)},
        "readinessProbe": {**HEALTH, "periodSeconds": READINESS_S, "timeoutSeconds": 2, "failureThreshold": 2},
        # One that does not answer has no turns to wait for.
        "livenessProbe": {
            **HEALTH,
            "periodSeconds": LIVENESS_S,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
            "terminationGracePeriodSeconds": GRACE_MARGIN_S,
        },
    }
    return {
        "containers": [worker],
        **({"initContainers": fetch} if fetch else {}),
        "volumes": volumes,
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": grace_s(spec),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **_scheduling(spec),
    }


def _args(spec: FleetSpec, model: str) -> list[str]:
    flags: dict[str, object] = {
        "--model": model,
        "--host": "0.0.0.0",
        "--port": PORT,
        "--pod-uid": "$(POD_UID)",
        "--token-file": f"{_TOKEN}/token",
        "--slots": spec.slots,
        "--drain-s": f"{seconds(spec.drain_deadline):g}",
        **_engine(spec.engine),
    }
    args = [text for flag, value in flags.items() for text in (flag, str(value))]
    return args + ["--mixed-chunk"] * bool(spec.engine.mixed_chunk)


def _engine(engine: EngineSettings) -> dict[str, object]:
    given = engine.model_dump(exclude_none=True, by_alias=False, exclude={"mixed_chunk"})
    return {f"--{name.replace('_', '-')}": value for name, value in given.items()}


def _model(spec: FleetSpec, image: str) -> tuple[str, list[Body], list[Body]]:
    """Return the worker's --model, the volume it is on and the container that puts it there, where there are such."""
    source = spec.model
    if source.pvc is not None:
        claim = {"claimName": source.pvc.claim_name, "readOnly": True}
        return f"{_MODEL}{source.pvc.path}".rstrip("/"), [{"name": "model", "persistentVolumeClaim": claim}], []
    if source.hugging_face is not None:
        wanted = source.hugging_face
        token = wanted.token_secret_ref
        secret = [
            {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": ref.name, "key": ref.key}}}
            for ref in [token]
            if ref
        ]
        resources = _dump(spec.template.resources)
        fetch = {
            "name": "fetch",
            "image": image,
            **_pull(spec),
            "command": ["python", "-m", "berth_worker.fetch"],
            "args": ["--repo", wanted.repo, "--revision", wanted.revision, "--to", _MODEL],
            # A proxy or another hub's address, for the most part.
            "env": [*_env(spec), *secret],
            # The worker's, since a quota wants them of every container and the best quality of service does too.
            # Devices left out: it computes nothing.
            "resources": {
                kind: {name: amount for name, amount in amounts.items() if DEVICES not in name}
                for kind, amounts in resources.items()
            },
            "volumeMounts": [{"name": "model", "mountPath": _MODEL}, {"name": "tmp", "mountPath": _TMP}],
            "securityContext": _RESTRICTED,
            "terminationMessagePolicy": "FallbackToLogsOnError",
        }
        return _MODEL, [{"name": "model", "emptyDir": {}}], [fetch]
    return str(source.builtin), [], []


def _env(spec: FleetSpec) -> list[Body]:
    return [{"name": each.name, "value": each.value} for each in spec.template.env]


def _pull(spec: FleetSpec) -> Body:
    return {"imagePullPolicy": spec.template.image_pull_policy} if spec.template.image_pull_policy else {}


def _scheduling(spec: FleetSpec) -> Body:
    wanted = spec.template.model_dump(
        mode="json",
        by_alias=True,
        exclude_defaults=True,
        exclude={"labels", "annotations", "image", "image_pull_policy", "resources", "env"},
    )
    return {name: value for name, value in wanted.items() if value}


def _dump(part: Any) -> Body:
    dumped: Body = part.model_dump(mode="json", by_alias=True, exclude_none=True)
    return dumped
