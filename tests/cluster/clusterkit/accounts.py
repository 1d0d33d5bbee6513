"""Service accounts with just the rights they are given, and kubeconfigs in their name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clusterkit import kubeconfig
from clusterkit.api import Api, ApiError, Object
from clusterkit.cluster import Cluster

_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_TOKEN_S = 24 * 3600


def rule(groups: str, resources: str, verbs: str) -> Object:
    """Return a policy rule from words parted by spaces; the core group is `core`."""
    named = ["" if group == "core" else group for group in groups.split()]
    return {"apiGroups": named, "resources": resources.split(), "verbs": verbs.split()}


async def service_account(
    cluster: Cluster, name: str, path: Path, *, rules: Sequence[Object], namespace: str, everywhere: bool = True
) -> Path:
    """Make (or change) the account and its rights, and write its kubeconfig to `path`.

    `rules` hold in the whole cluster, or in the account's namespace only. The audit log shows its requests as
    `system:serviceaccount:<namespace>:<name>`.
    """
    if cluster.ca is None:
        raise RuntimeError("a kubeconfig for a service account wants a cluster of our own")
    async with cluster.api() as api:
        await _ensure(api, f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": name}})
        await _grant(api, name, namespace, list(rules), everywhere=everywhere)
        asked = {"spec": {"expirationSeconds": _TOKEN_S}}
        made = await api.create(f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token", asked)
    token = made["status"]["token"]
    return kubeconfig.write(path, server=cluster.url, ca=cluster.ca, token=token, namespace=namespace)


async def _grant(api: Api, name: str, namespace: str, rules: list[Object], *, everywhere: bool) -> None:
    prefix = "Cluster" if everywhere else ""
    base = _RBAC if everywhere else f"{_RBAC}/namespaces/{namespace}"
    called = f"{namespace}:{name}" if everywhere else name
    metadata = {"name": called}
    roles, bindings = (f"{base}/{prefix.lower()}{kind}" for kind in ("roles", "rolebindings"))
    await _ensure(api, roles, {"metadata": metadata, "rules": rules})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": f"{prefix}Role", "name": called}
    subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    await _ensure(api, bindings, {"metadata": metadata, "roleRef": role, "subjects": [subject]})


async def _ensure(api: Api, path: str, body: Object) -> None:
    """Create the object, or bring the one that is there to it."""
    try:
        await api.create(path, body)
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise
        await api.patch(f"{path}/{body['metadata']['name']}", body)
