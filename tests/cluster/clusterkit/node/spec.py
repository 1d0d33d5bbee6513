"""A container's texts, as a kubelet would compute them and as a process of this machine can use them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Object = dict[str, Any]

ANYWHERE = "0.0.0.0"
_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_.-][\w.-]*)\)")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


class Unsupported(Exception):
    """The pod asks for what a stand-in node does not know; the message names it."""


def check(pod: Object) -> None:
    """Raise Unsupported for what would otherwise only be noticed by what does not happen."""
    containers = [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
    for container in containers:
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            if not {"httpGet", "tcpSocket", "exec"} & container.get(kind, {"exec": {}}).keys():
                raise Unsupported(f"{kind} by {', '.join(container[kind])}")
        hooks = container.get("lifecycle", {})
        if "postStart" in hooks or not {"exec", "sleep", "httpGet"} & hooks.get("preStop", {"exec": {}}).keys():
            raise Unsupported(f"lifecycle {hooks}")
        if "restartPolicy" in container:
            raise Unsupported("sidecar containers")


def expand(text: str, env: Mapping[str, str]) -> str:
    """Replace $(NAME) by its value where it has one; $$ stands for $."""

    def value(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        return env.get(found[1], found[0])

    return _REFERENCE.sub(value, text)


def relocate(text: str, paths: Mapping[str, str], address: str) -> str:
    """Replace paths inside the container by where they are on this machine, and 0.0.0.0 by the pod's own address.

    Pods share this machine's ports: one that listens everywhere would meet the next one.
    """
    text = re.sub(rf"(?<![\d.]){re.escape(ANYWHERE)}(?![\d.])", address, text)
    if not paths:
        return text
    longest_first = sorted(paths, key=len, reverse=True)
    mounted = "|".join(re.escape(path) for path in longest_first)
    return re.sub(rf"(?:(?<=://)|(?<![\w./-]))({mounted})(?![\w.-])", lambda found: paths[found[1]], text)


def field(pod: Object, path: str, address: str, host_address: str) -> str:
    """Return the value of a fieldRef. Raises Unsupported."""
    metadata, spec = pod["metadata"], pod["spec"]
    plain = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": spec["nodeName"],
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.podIP": address,
        "status.podIPs": address,
        "status.hostIP": host_address,
        "status.hostIPs": host_address,
    }
    if path in plain:
        return str(plain[path])
    if found := _SUBSCRIPT.fullmatch(path):
        return str(metadata.get(found[1], {}).get(found[2], ""))
    raise Unsupported(f"fieldRef {path}")


def seconds_of_grace(pod: Object) -> float:
    """Return how long the containers may take to end: the deletion's, else the pod's own."""
    given = pod["metadata"].get("deletionGracePeriodSeconds")
    return float(pod["spec"].get("terminationGracePeriodSeconds", 30) if given is None else given)


def port_of(container: Object, port: int | str) -> int:
    """Return a port by number or by its name in the container. Raises Unsupported."""
    if isinstance(port, int):
        return port
    for declared in container.get("ports", []):
        if declared.get("name") == port:
            return int(declared["containerPort"])
    if port.isdigit():
        return int(port)
    raise Unsupported(f"port {port!r}, which the container does not declare")
