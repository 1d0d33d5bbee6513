"""The kit's control plane is a real one: it refuses, collects, counts, and comes back on its old data."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterkit.accounts import rule, service_account
from clusterkit.api import Api, ApiError
from clusterkit.audit import Audit
from clusterkit.cluster import Cluster
from clusterkit.control_plane import ControlPlane
from clusterkit.kubectl import Kubectl, KubectlFailed
from clusterkit.waiting import until


def config_map(name: str, **more: object) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **more}, "data": {"a": "1"}}


async def test_what_kubectl_applies_is_there(kubectl: Kubectl) -> None:
    await kubectl.apply([config_map("one"), config_map("two")])

    assert (await kubectl.get("configmap", "one"))["data"] == {"a": "1"}
    assert {"one", "two"} <= {item["metadata"]["name"] for item in await kubectl.items("configmaps")}
    with pytest.raises(KubectlFailed, match="not found"):
        await kubectl.get("configmap", "three")


async def test_the_garbage_collector_takes_what_an_owner_leaves(kubectl: Kubectl, api: Api, namespace: str) -> None:
    await kubectl.apply(config_map("owner"))
    owner = await kubectl.get("configmap", "owner")
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    await kubectl.apply(config_map("owned", ownerReferences=[reference]))

    await kubectl.delete("configmap", "owner")

    async def gone() -> bool:
        return await api.find(f"/api/v1/namespaces/{namespace}/configmaps/owned") is None

    await until(gone, "the owned object goes after its owner")


async def test_a_namespace_refuses_pods_that_are_not_restricted(kubectl: Kubectl) -> None:
    container = {"name": "a", "image": "any", "securityContext": {"privileged": True}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [container]}}

    with pytest.raises(KubectlFailed, match="violates PodSecurity"):
        await kubectl.apply(pod)


async def test_the_audit_log_counts_writes_by_who_did_what(
    audit: Audit, api: Api, kubectl: Kubectl, namespace: str
) -> None:
    before = audit.mark()
    await kubectl.apply(config_map("counted"))
    await kubectl.raw("annotate", "configmap", "counted", "a=b")
    with pytest.raises(ApiError, match="already exists"):
        await api.create(f"/api/v1/namespaces/{namespace}/configmaps", {"metadata": {"name": "counted"}})
    await audit.caught_up(api)

    writes = audit.writes(since=before, namespace=namespace, resource="configmaps", name="counted")
    assert [(write.user, write.verb) for write in writes] == [("admin", "create"), ("admin", "patch")]
    assert audit.writes(since=audit.mark()) == []


async def test_a_service_account_has_the_rights_it_was_given_and_no_others(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    if cluster.ca is None:
        pytest.skip("an existing cluster has its own way to log in")
    rules = [rule("core", "configmaps", "get create")]
    config = await service_account(cluster, "reader", tmp_path / "config", rules=rules, namespace=namespace)
    reader = Kubectl(cluster.kubectl.program, config, namespace)

    await reader.raw("create", "configmap", "mine")
    await reader.get("configmap", "mine")
    with pytest.raises(KubectlFailed, match=f'User "system:serviceaccount:{namespace}:reader" cannot delete'):
        await reader.delete("configmap", "mine")


async def test_a_killed_api_server_comes_back_with_what_it_knew(
    plane: ControlPlane, api: Api, kubectl: Kubectl
) -> None:
    await kubectl.apply(config_map("kept"))

    plane.kill("kube-apiserver")
    assert plane.ended() == ["kube-apiserver"]
    with pytest.raises(OSError, match="Cannot connect"):
        await api.get("/version")
    plane.start("kube-apiserver")

    assert (await kubectl.get("configmap", "kept"))["data"] == {"a": "1"}
