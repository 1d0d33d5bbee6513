"""Manifests as the restricted pod security standard wants them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clusterkit.api import Object

CONTAINER_SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True}
POD_SECURITY = {"seccompProfile": {"type": "RuntimeDefault"}}


def pod(
    name: str,
    image: str,
    args: Sequence[str] = (),
    *,
    labels: Mapping[str, str] | None = None,
    container: Object | None = None,
    **spec: Any,
) -> Object:
    """Return a pod of one container, `main`; `container` adds to the container, `spec` to the pod."""
    main = {
        "name": "main",
        "image": image,
        "args": list(args),
        "securityContext": CONTAINER_SECURITY,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **(container or {}),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": dict(labels or {})},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": POD_SECURITY,
            "containers": [main],
            **spec,
        },
    }


def http_probe(path: str, port: int | str, **times: int) -> Object:
    """Return a probe by HTTP, every second unless `times` say otherwise."""
    return {"httpGet": {"path": path, "port": port}, "periodSeconds": 1, **times}
