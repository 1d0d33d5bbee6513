"""The stand-in node behaves as a kubelet does, as far as a controller can see."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from clusterkit.api import STRATEGIC, Api, ApiError, Object
from clusterkit.kubectl import Kubectl
from clusterkit.manifests import http_probe, pod
from clusterkit.node.node import Node
from clusterkit.node.settings import Capacity
from clusterkit.pods import Pods, condition, container
from clusterkit.waiting import until

WEB = "berth/web:test"
LISTEN = ["--host", "0.0.0.0", "--port", "8000"]
READY = {"readinessProbe": http_probe("/health", 8000)}


async def ask(found: Object, path: str) -> Any:
    """GET from a pod's server."""
    async with aiohttp.ClientSession() as http, http.get(f"http://{found['status']['podIP']}:8000{path}") as answer:
        return await answer.json(content_type=None)


def running(pid: int) -> bool:
    """Whether a process lives; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def dead(pid: int) -> bool:
    return not running(pid)


@pytest.fixture
def pods(api: Api, kubectl: Kubectl) -> Pods:
    return Pods(api, kubectl)


# --- a pod's life


@pytest.mark.usefixtures("node")
async def test_a_pod_gets_ready_by_its_probe_at_an_address_of_its_own(pods: Pods) -> None:
    await pods.make(*(pod(name, WEB, LISTEN, container=READY) for name in ("a", "b")))
    first, second = await pods.ready("a"), await pods.ready("b")

    assert first["status"]["phase"] == "Running"
    assert container(first)["started"] is container(first)["ready"] is True
    assert first["status"]["podIP"] != second["status"]["podIP"]
    assert (await ask(second, "/args"))[:2] == ["--host", second["status"]["podIP"]]


@pytest.mark.usefixtures("node")
async def test_a_container_gets_its_environment_and_its_files(pods: Pods, kubectl: Kubectl) -> None:
    await kubectl.raw("create", "secret", "generic", "word", "--from-literal=token=open sesame")
    await kubectl.raw("create", "configmap", "settings", "--from-literal=mode=fast")
    uid = {"name": "UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}
    address = {"name": "ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    word = {"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "word", "key": "token"}}}
    both = {"name": "BOTH", "value": "$(UID) at $(ADDRESS), $$(UID), $(NONE)"}
    file = {"name": "FILE", "value": "/var/run/word/token"}
    await pods.make(
        pod(
            "a",
            WEB,
            [*LISTEN, "--", "$(UID)", "/var/run/word/token", "/var/run/words"],
            container={
                **READY,
                "env": [uid, address, word, both, file],
                "envFrom": [{"configMapRef": {"name": "settings"}}],
                "volumeMounts": [{"name": "word", "mountPath": "/var/run/word"}],
            },
            volumes=[{"name": "word", "secret": {"secretName": "word"}}],
        )
    )
    found = await pods.ready("a")

    env, metadata = await ask(found, "/env"), found["metadata"]
    assert (env["UID"], env["ADDRESS"], env["WORD"]) == (metadata["uid"], found["status"]["podIP"], "open sesame")
    assert env["BOTH"] == f"{metadata['uid']} at {found['status']['podIP']}, $(UID), $(NONE)"
    assert env["mode"] == "fast"
    assert "VIRTUAL_ENV" not in env, "what the test run has in its environment is none of a container's business"
    given = await ask(found, "/args")
    assert given[-3] == metadata["uid"]
    assert given[-1] == "/var/run/words"
    assert await ask(found, f"/file?path={given[-2]}") == await ask(found, f"/file?path={env['FILE']}") == "open sesame"


@pytest.mark.usefixtures("node")
async def test_volumes_of_every_kind_are_folders(pods: Pods, kubectl: Kubectl, tmp_path: Path) -> None:
    (tmp_path / "model").write_text("weights")
    await kubectl.raw("create", "configmap", "settings", "--from-literal=a=1", "--from-literal=b=2")
    size = {"storage": "1Gi"}
    folder = {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
    disk = {**folder, "capacity": size, "hostPath": {"path": str(tmp_path)}}
    claim = {**folder, "resources": {"requests": size}, "volumeName": pods.namespace}
    await kubectl.apply(
        [
            {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": pods.namespace}, "spec": disk},
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "models"}, "spec": claim},
        ]
    )
    own_name = {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}
    volumes = {
        "some": {"configMap": {"name": "settings", "items": [{"key": "b", "path": "deep/b"}]}},
        "self": {"downwardAPI": {"items": [own_name]}},
        "disk": {"persistentVolumeClaim": {"claimName": "models"}},
    }
    account = "/var/run/secrets/kubernetes.io/serviceaccount"
    files = ["/some/deep/b", "/self/name", "/disk/model", f"{account}/namespace", f"{account}/token"]
    await pods.make(
        pod(
            "a",
            WEB,
            [*LISTEN, "--", *files],
            container={**READY, "volumeMounts": [{"name": name, "mountPath": f"/{name}"} for name in volumes]},
            volumes=[{"name": name, **source} for name, source in volumes.items()],
            automountServiceAccountToken=True,
        )
    )
    found = await pods.ready("a")

    given = (await ask(found, "/args"))[-len(files) :]
    *content, token = [await ask(found, f"/file?path={path}") for path in given]
    assert content == ["2", "a", "weights", pods.namespace]
    assert token.count(".") == 2, "a token of the pod's own service account"


@pytest.mark.usefixtures("node")
async def test_containers_start_when_the_init_containers_have_ended_well(pods: Pods) -> None:
    shared = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    script = "test -e /shared/once && cp /shared/once /shared/twice; echo done > /shared/once; test -e /shared/twice"
    manifest = pod("a", WEB, LISTEN, container={**READY, **shared}, volumes=[{"name": "shared", "emptyDir": {}}])
    security = manifest["spec"]["containers"][0]["securityContext"]
    init = {"name": "init", "image": WEB, "command": ["sh", "-c", script], "securityContext": security, **shared}
    await pods.make({**manifest, "spec": {**manifest["spec"], "initContainers": [init]}})

    found = await pods.ready("a")

    assert found["status"]["initContainerStatuses"][0]["restartCount"] == 1
    assert condition(found, "Initialized") == ("True", "")
    assert container(found)["restartCount"] == 0


@pytest.mark.usefixtures("node")
async def test_a_pod_that_is_not_restarted_ends_with_its_last_words(pods: Pods) -> None:
    good = pod("good", WEB, container={"command": ["sh", "-c", "exit 0"]}, restartPolicy="Never")
    bad = pod("bad", WEB, container={"command": ["sh", "-c", "echo no model; exit 3"]}, restartPolicy="Never")
    early = pod("early", WEB, LISTEN, restartPolicy="Never")
    early["spec"]["initContainers"] = [{**bad["spec"]["containers"][0], "name": "init"}]
    await pods.make(good, bad, early)

    await pods.see("good", lambda pod: pod["status"]["phase"] == "Succeeded", "succeeded")
    found = await pods.see("bad", lambda pod: pod["status"]["phase"] == "Failed", "failed")

    ended = container(found)["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (3, "Error", "no model")
    assert condition(found, "Ready") == ("False", "PodFailed")
    found = await pods.see("early", lambda pod: pod["status"]["phase"] == "Failed", "failed")
    assert container(found)["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert condition(found, "Initialized") == ("False", "ContainersNotInitialized")


async def test_a_crash_is_restarted_at_once_and_then_ever_later(pods: Pods, node: Node) -> None:
    await pods.make(
        pod("a", WEB, LISTEN, container=READY), pod("b", WEB, container={"command": ["sh", "-c", "exit 7"]})
    )
    await pods.ready("a")

    node.kill(pods.namespace, "a", fate="OOMKilled")
    found = await pods.see(
        "a", lambda pod: container(pod)["restartCount"] == 1 and container(pod)["ready"], "restarted"
    )
    ended = container(found)["lastState"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (137, "OOMKilled")

    waiting = await pods.waits("b", "CrashLoopBackOff")
    assert "restarting failed container=main" in waiting["message"]
    assert container(await pods.see("b", lambda pod: container(pod)["restartCount"] >= 2, "tried again"))


async def test_probes_make_unready_and_restart(pods: Pods, node: Node) -> None:
    liveness = {"livenessProbe": http_probe("/health", "http", failureThreshold=2)}
    port = {"ports": [{"name": "http", "containerPort": 8000}]}
    never = {"startupProbe": http_probe("/health", 8001, failureThreshold=2)}
    await pods.make(
        pod("a", WEB, LISTEN, container={**READY, **liveness, **port}),
        pod("b", WEB, LISTEN, container=never),
    )
    found = await pods.ready("a")
    before = node.pid(pods.namespace, "a")

    await ask(found, "/sick")

    unready = await pods.see("a", lambda pod: not container(pod)["ready"], "unready")
    assert condition(unready, "Ready") == ("False", "ContainersNotReady")
    await pods.see("a", lambda pod: container(pod)["restartCount"] == 1 and container(pod)["ready"], "restarted")
    assert not running(before)
    await pods.see("b", lambda pod: container(pod)["restartCount"] >= 1, "never started")
    assert container(await pods.see("b", lambda _: True, "there"))["started"] is False


# --- its end


async def test_a_deleted_pod_has_its_hook_its_signal_and_its_grace(pods: Pods, node: Node, kubectl: Kubectl) -> None:
    hook = {"lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "echo hook > /notes/hook"]}}}}
    notes = {"volumeMounts": [{"name": "notes", "mountPath": "/notes"}]}
    volumes = [{"name": "notes", "emptyDir": {}}]
    await pods.make(pod("a", WEB, [*LISTEN, "--linger", "1"], container={**READY, **hook, **notes}, volumes=volumes))
    await pods.ready("a")
    here = node.pod(pods.namespace, "a")

    await kubectl.delete("pod", "a", "--wait=false")

    found = await pods.see("a", lambda _: "lingering" in node.log(pods.namespace, "a"), "has its SIGTERM")
    assert found["metadata"]["deletionTimestamp"]
    assert (here.folder / "volumes/notes/hook").read_text() == "hook\n"
    await pods.gone("a")
    assert here.container().status.exit_code == 0


async def test_grace_is_not_exceeded_and_may_be_shortened(pods: Pods, node: Node, kubectl: Kubectl) -> None:
    slow = [*LISTEN, "--linger", "600"]
    await pods.make(*(pod(name, WEB, slow, container=READY, terminationGracePeriodSeconds=600) for name in ("a", "b")))
    for name in ("a", "b"):
        await pods.ready(name)
    ends = {name: node.pod(pods.namespace, name).container() for name in ("a", "b")}
    await kubectl.delete("pod", "a", "--wait=false", "--grace-period=1")
    await kubectl.delete("pod", "b", "--wait=false")
    await pods.see("b", lambda _: "lingering" in node.log(pods.namespace, "b"), "has its SIGTERM")
    await kubectl.delete("pod", "b", "--wait=false", "--grace-period=1")

    for name in ("a", "b"):
        await pods.gone(name)
        assert ends[name].status.exit_code == 137


async def test_a_forced_deletion_kills_at_once(pods: Pods, node: Node, kubectl: Kubectl) -> None:
    await pods.make(pod("a", WEB, [*LISTEN, "--linger", "600"], container=READY))
    await pods.ready("a")
    pid = node.pid(pods.namespace, "a")

    await kubectl.delete("pod", "a", "--force", "--grace-period=0")

    await until(lambda: dead(pid), "the process is gone")


@pytest.mark.usefixtures("node")
async def test_the_eviction_api_asks_the_budget_and_then_ends_the_pod(pods: Pods, api: Api, kubectl: Kubectl) -> None:
    await pods.make(pod("a", WEB, LISTEN, labels={"app": "a"}, container=READY))
    await pods.ready("a")
    await kubectl.raw("create", "poddisruptionbudget", "a", "--selector=app=a", "--min-available=1")
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a", "namespace": pods.namespace}}

    with pytest.raises(ApiError) as refused:
        await api.create(f"{pods.path('a')}/eviction", eviction)
    assert refused.value.status == 429

    await kubectl.delete("poddisruptionbudget", "a")
    await api.create(f"{pods.path('a')}/eviction", eviction)
    await pods.gone("a")


async def test_a_pod_evicted_under_pressure_stays_as_failed(pods: Pods, node: Node, kubectl: Kubectl) -> None:
    await pods.make(pod("a", WEB, LISTEN, container=READY))
    await pods.ready("a")
    pid = node.pid(pods.namespace, "a")

    await node.evict(pods.namespace, "a")

    found = await pods.see("a", lambda pod: pod["status"]["phase"] == "Failed", "failed")
    assert found["status"]["reason"] == "Evicted"
    assert condition(found, "Ready") == ("False", "PodFailed")
    assert not running(pid)
    await kubectl.delete("pod", "a")


# --- what keeps a pod from running


async def test_an_unknown_image_is_waited_for(pods: Pods, node: Node) -> None:
    await pods.make(pod("a", "berth/late:test", LISTEN, container=READY))
    waiting = await pods.waits("a", "ErrImagePull", "ImagePullBackOff")
    assert 'image "berth/late:test": not found' in waiting["message"]
    await pods.waits("a", "ImagePullBackOff")

    node.images["berth/late:test"] = node.images[WEB]

    assert container(await pods.ready("a"))["restartCount"] == 0


@pytest.mark.usefixtures("node")
async def test_what_a_pod_refers_to_is_waited_for(pods: Pods, kubectl: Kubectl) -> None:
    word = {"env": [{"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "late", "key": "token"}}}]}
    volume = [{"name": "late", "secret": {"secretName": "late"}}]
    await pods.make(
        pod("env", WEB, LISTEN, container={**READY, **word}),
        pod("volume", WEB, LISTEN, container=READY, volumes=volume),
    )
    assert (await pods.waits("env", "CreateContainerConfigError"))["message"] == 'secret "late" not found'
    await pods.waits("volume", "ContainerCreating")
    unmounted = await pods.see("volume", lambda pod: condition(pod, "PodReadyToStartContainers")[0] == "False", "bare")
    assert condition(unmounted, "PodScheduled")[0] == "True"
    await pods.see("env", lambda pod: condition(pod, "PodReadyToStartContainers")[0] == "True", "mounted")

    await kubectl.raw("create", "secret", "generic", "late", "--from-literal=token=x")

    await pods.ready("env")
    await pods.ready("volume")


async def test_the_scheduler_says_why_a_pod_fits_nowhere(
    pods: Pods, start_node: Callable[..., Awaitable[Node]]
) -> None:
    def gpu(name: str) -> Object:
        return pod(name, WEB, LISTEN, container={**READY, "resources": {"limits": {"nvidia.com/gpu": "1"}}})

    await start_node()
    await pods.make(gpu("a"), gpu("b"))
    found = await pods.see("a", lambda pod: condition(pod, "PodScheduled")[0] == "False", "not scheduled")
    assert condition(found, "PodScheduled") == ("False", "Unschedulable")

    await start_node(capacity=Capacity(gpus=1))

    async def one_of_them() -> list[Object]:
        found = [await pods.see(name, lambda _: True, "there") for name in ("a", "b")]
        return [pod for pod in found if condition(pod, "PodScheduled")[0] == "True"]

    assert len(await until(one_of_them, "there is room for one")) == 1


@pytest.mark.usefixtures("node")
async def test_what_the_stand_in_does_not_know_fails_the_pod_and_says_so(pods: Pods) -> None:
    await pods.make(pod("a", WEB, LISTEN, container={"livenessProbe": {"grpc": {"port": 1}}}))

    found = await pods.see("a", lambda pod: pod["status"]["phase"] == "Failed", "failed")

    assert found["status"]["reason"] == "UnsupportedByStandIn"
    assert "livenessProbe by grpc" in found["status"]["message"]


# --- nodes that fail


async def test_a_node_cut_off_is_found_unreachable_and_its_processes_live_on(
    pods: Pods, api: Api, kubectl: Kubectl, start_node: Callable[..., Awaitable[Node]]
) -> None:
    await start_node()  # with every node gone, the node lifecycle controller suspects itself and does nothing
    cut = await start_node(labels={"cut": "yes"})
    soon = [{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "tolerationSeconds": 0}]
    here = {"nodeSelector": {"cut": "yes"}}
    await pods.make(
        pod("kept", WEB, LISTEN, container=READY, **here),
        pod("crashed", WEB, LISTEN, container=READY, **here),
        pod("forced", WEB, LISTEN, container=READY, **here),
        pod("evicted", WEB, LISTEN, container=READY, tolerations=soon, **here),
    )
    found = await pods.ready("kept")
    for name in ("crashed", "forced", "evicted"):
        await pods.ready(name)
    forced = cut.pid(pods.namespace, "forced")

    await cut.partition()
    cut.kill(pods.namespace, "crashed")
    await kubectl.delete("pod", "forced", "--force", "--grace-period=0")

    await pods.see("kept", lambda pod: condition(pod, "Ready")[0] == "False", "its node is not ready")
    node = await api.get(f"/api/v1/nodes/{cut.name}")
    assert condition(node, "Ready") == ("Unknown", "NodeStatusUnknown")
    leaving = await pods.see("evicted", lambda pod: pod["metadata"].get("deletionTimestamp"), "told to go")
    assert await ask(leaving, "/health") is None, "and nobody there has heard of it"
    assert container(await api.get(pods.path("crashed")))["restartCount"] == 0, "and nobody here of the crash"
    assert running(forced)

    await cut.heal()

    healed = await pods.ready("kept")
    assert container(healed)["containerID"] == container(found)["containerID"]
    await pods.see("crashed", lambda pod: container(pod)["restartCount"] == 1, "its restart is told")
    await pods.gone("evicted")
    await until(lambda: dead(forced), "what was deleted meanwhile is ended")


async def test_a_node_that_was_switched_off_starts_its_pods_again(pods: Pods, node: Node) -> None:
    await pods.make(pod("a", WEB, LISTEN, container=READY))
    await pods.ready("a")
    pid = node.pid(pods.namespace, "a")

    await node.crash()
    assert not running(pid)
    await node.heal()

    found = await pods.see("a", lambda pod: container(pod)["restartCount"] == 1, "restarted")
    assert container(found)["lastState"]["terminated"]["exitCode"] == 137
    await pods.ready("a")


async def test_a_dropped_node_is_forgotten(pods: Pods, api: Api, node: Node) -> None:
    await pods.make(pod("a", WEB, LISTEN, container=READY))
    await pods.ready("a")
    pid = node.pid(pods.namespace, "a")

    await node.drop()

    assert not running(pid)
    assert await api.find(f"/api/v1/nodes/{node.name}") is None
    assert await api.find(pods.path("a")) is not None, "the pod garbage collector takes it a minute later"


async def test_a_node_whose_heartbeat_came_too_late_is_ready_again(pods: Pods, api: Api, node: Node) -> None:
    await pods.make(pod("a", WEB, LISTEN, container=READY))
    await pods.ready("a")
    for path, status in ((pods.path("a"), "False"), (f"/api/v1/nodes/{node.name}", "Unknown")):
        lost = {"type": "Ready", "status": status, "reason": "NodeStatusUnknown"}
        await api.patch(f"{path}/status", {"status": {"conditions": [lost]}}, STRATEGIC)

    async def ready() -> bool:
        found = await api.get(f"/api/v1/nodes/{node.name}")
        return condition(found, "Ready")[0] == "True" and not found["spec"].get("taints")

    await until(ready, "the node is ready again")
    await pods.ready("a")
