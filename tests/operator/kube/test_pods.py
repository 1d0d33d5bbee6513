"""What a fleet's pods are, and which of its wishes make them other pods."""

from __future__ import annotations

from typing import Any

import pytest

from berth_api.crd import InferenceFleet
from berth_operator.kube import pods
from berth_operator.kube.settings import PodSettings
from berth_operator.kube.store import Body
from berth_operator.model import FleetKey, Place
from berth_worker import fetch, flags
from kubekit.bodies import FLEET, fleet

SETTINGS = PodSettings("berth/worker:1", "worker-token")
START_S = 900.0
PVC = {"pvc": {"claimName": "checkpoints", "path": "/qwen"}}
HUB = {"huggingFace": {"repo": "Qwen/Qwen3-8B", "revision": "main", "tokenSecretRef": {"name": "hub", "key": "t"}}}
SOURCES = pytest.mark.parametrize("model", [{"builtin": "berth-tiny"}, PVC, HUB], ids=["builtin", "pvc", "hub"])


def resource(**spec: Any) -> InferenceFleet:
    return InferenceFleet.model_validate(fleet(**spec))


def pod(**spec: Any) -> Body:
    return pods.pod(resource(**spec), Place(FLEET, 3, "0a1b2c3d"), SETTINGS, START_S)


def worker(**spec: Any) -> Body:
    (container,) = pod(**spec)["spec"]["containers"]
    return dict(container)


def revision(**spec: Any) -> str:
    return pods.revision(resource(**spec), SETTINGS, START_S)


class TestIdentity:
    def test_its_name_is_the_fence_and_its_owner_takes_it_along(self) -> None:
        assert pod()["metadata"] == {
            "name": "tiny-0a1b2c3d-3",
            "namespace": "team",
            "labels": {
                "app.kubernetes.io/name": "berth-worker",
                "app.kubernetes.io/managed-by": "berth-operator",
                "berth.dev/fleet": "tiny",
                "berth.dev/revision": "0a1b2c3d",
                "berth.dev/ordinal": "3",
            },
            "annotations": {},
            "ownerReferences": [
                {
                    "apiVersion": "berth.dev/v1alpha1",
                    "kind": "InferenceFleet",
                    "name": "tiny",
                    "uid": "fleet-1",
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        }

    def test_further_labels_and_annotations_are_the_templates(self) -> None:
        meta = pod(template={"labels": {"team": "red"}, "annotations": {"note": "x"}})["metadata"]
        assert meta["labels"]["team"] == "red"
        assert meta["labels"]["berth.dev/fleet"] == "tiny"
        assert meta["annotations"] == {"note": "x"}

    def test_the_longest_name_is_a_host_name(self) -> None:
        assert len(str(Place(FleetKey("team", "x" * 45), 4999, "0a1b2c3d"))) <= 63


@SOURCES
class TestRestricted:
    """The pod security standard `restricted`, and no more of the node than that allows."""

    def test_every_container_is_locked_down(self, model: Body) -> None:
        spec = pod(model=model)["spec"]
        for container in (*spec.get("initContainers", ()), *spec["containers"]):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }

    def test_nobody_is_root(self, model: Body) -> None:
        context = pod(model=model)["spec"]["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}

    def test_it_has_no_word_with_the_api_server(self, model: Body) -> None:
        spec = pod(model=model)["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert "serviceAccountName" not in spec
        assert spec["enableServiceLinks"] is False

    def test_its_volumes_are_of_restricted_kinds(self, model: Body) -> None:
        volumes = pod(model=model)["spec"]["volumes"]
        kinds = {kind for volume in volumes for kind in volume if kind != "name"}
        assert kinds <= {"secret", "emptyDir", "persistentVolumeClaim"}

    def test_every_mount_has_its_volume(self, model: Body) -> None:
        spec = pod(model=model)["spec"]
        mounted = {
            mount["name"]
            for container in (*spec.get("initContainers", ()), *spec["containers"])
            for mount in container["volumeMounts"]
        }
        assert mounted == {volume["name"] for volume in spec["volumes"]}


@SOURCES
def test_the_worker_understands_its_arguments(model: Body) -> None:
    """By the worker's own grammar: the two are written apart."""
    engine = {
        "dtype": "bfloat16",
        "pageSize": 32,
        "maxTotalTokens": 65536,
        "chunkedPrefillSize": 512,
        "maxRunning": 16,
        "contextLength": 8192,
        "attention": "native",
        "mixedChunk": True,
        "threads": 4,
    }
    given = flags.parser().parse_args(worker(model=model, engine=engine, slots=6, drainDeadline="90s")["args"])
    wanted = (given.slots, given.dtype, given.page_size, given.max_total_tokens, given.chunked_prefill_size)
    assert wanted == (6, "bfloat16", 32, 65536, 512)
    wanted = (given.max_running, given.context_length, given.attention, given.mixed_chunk, given.threads)
    assert wanted == (16, 8192, "native", True, 4)
    assert (given.host, given.port, str(given.token_file)) == ("0.0.0.0", 8000, "/var/run/berth/token")
    assert given.pod_uid == "$(POD_UID)"
    assert given.drain_s == 90.0


def test_what_the_engine_is_not_told_is_the_workers_own_choice() -> None:
    args = worker()["args"]
    assert args[::2] == ["--model", "--host", "--port", "--pod-uid", "--token-file", "--slots", "--drain-s"]
    assert "--mixed-chunk" not in worker(engine={"mixedChunk": False})["args"]


class TestModelSources:
    def test_builtin(self) -> None:
        assert worker()["args"][:2] == ["--model", "berth-tiny"]
        assert "initContainers" not in pod()["spec"]

    @pytest.mark.parametrize(("path", "model"), [("/qwen", "/models/qwen"), ("/", "/models"), ("/a/b/", "/models/a/b")])
    def test_a_folder_on_a_volume_is_read_only(self, path: str, model: str) -> None:
        made = pod(model={"pvc": {"claimName": "checkpoints", "path": path}})["spec"]
        claim = {"claimName": "checkpoints", "readOnly": True}
        assert {"name": "model", "persistentVolumeClaim": claim} in made["volumes"]
        (container,) = made["containers"]
        assert container["args"][:2] == ["--model", model]
        assert {"name": "model", "mountPath": "/models", "readOnly": True} in container["volumeMounts"]

    def test_a_repository_is_fetched_before(self) -> None:
        made = pod(model=HUB)["spec"]
        (first,) = made["initContainers"]
        assert first["command"] == ["python", "-m", "berth_worker.fetch"]
        given = fetch.parser().parse_args(first["args"])
        assert (given.repo, given.revision, str(given.to)) == ("Qwen/Qwen3-8B", "main", "/models")
        assert first["env"] == [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "t"}}}]
        assert {"name": "model", "mountPath": "/models"} in first["volumeMounts"]
        (container,) = made["containers"]
        assert container["args"][:2] == ["--model", "/models"]
        assert not any(each["name"] == "HF_TOKEN" for each in container["env"])

    def test_what_fetches_it_is_run_as_the_worker_is(self) -> None:
        """By the same image, pulled in the same way; within a quota; through a proxy. But it needs no GPU."""
        amounts = {"requests": {"cpu": "2"}, "limits": {"memory": "8Gi", "nvidia.com/gpu": 1}}
        proxy = {"name": "HTTPS_PROXY", "value": "http://proxy:3128"}
        made = pod(
            model=HUB,
            template={"image": "acme/worker", "imagePullPolicy": "Never", "resources": amounts, "env": [proxy]},
        )["spec"]
        (first,), (container,) = made["initContainers"], made["containers"]
        assert (first["image"], first["imagePullPolicy"]) == (container["image"], container["imagePullPolicy"])
        assert first["resources"] == {"requests": {"cpu": "2"}, "limits": {"memory": "8Gi"}}
        assert first["env"][0] == proxy
        assert first["env"][1]["name"] == "HF_TOKEN"

    def test_one_that_wants_no_token_gets_none(self) -> None:
        (first,) = pod(model={"huggingFace": {"repo": "acme/tiny", "revision": "1"}})["spec"]["initContainers"]
        assert first["env"] == []


class TestLife:
    def test_probes_ask_for_health(self) -> None:
        container = worker()
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"] == {"path": "/health", "port": 8000}

    def test_it_may_load_for_as_long_as_the_operator_waits(self) -> None:
        probe = worker()["startupProbe"]
        assert probe["periodSeconds"] * probe["failureThreshold"] == START_S

    @pytest.mark.parametrize(("deadline", "grace"), [("2m", 135), ("1500ms", 17), ("1h", 3615)])
    def test_its_end_may_take_as_long_as_a_drain_and_a_little_more(self, deadline: str, grace: int) -> None:
        assert pod(drainDeadline=deadline)["spec"]["terminationGracePeriodSeconds"] == grace

    def test_one_that_hangs_is_started_again_without_waiting_for_its_turns(self) -> None:
        assert worker()["livenessProbe"]["terminationGracePeriodSeconds"] == 15
        assert "terminationGracePeriodSeconds" not in worker()["readinessProbe"]

    def test_its_last_words_are_kept(self) -> None:
        assert worker()["terminationMessagePolicy"] == "FallbackToLogsOnError"

    def test_the_token_comes_from_the_secret(self) -> None:
        made = pod()["spec"]
        assert {"name": "token", "secret": {"secretName": "worker-token"}} in made["volumes"]
        (container,) = made["containers"]
        assert {"name": "token", "mountPath": "/var/run/berth", "readOnly": True} in container["volumeMounts"]

    def test_it_knows_its_pod(self) -> None:
        env = {each["name"]: each for each in worker(template={"env": [{"name": "A", "value": "1"}]})["env"]}
        assert env["POD_UID"]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.uid"}}
        assert env["POD_IP"]["valueFrom"] == {"fieldRef": {"fieldPath": "status.podIP"}}
        assert env["A"] == {"name": "A", "value": "1"}


class TestTemplate:
    def test_the_image_is_the_fleets_or_ours(self) -> None:
        assert worker()["image"] == "berth/worker:1"
        assert "imagePullPolicy" not in worker()
        own = worker(template={"image": "acme/worker:2", "imagePullPolicy": "Always"})
        assert (own["image"], own["imagePullPolicy"]) == ("acme/worker:2", "Always")

    def test_what_it_takes_of_its_node(self) -> None:
        resources = {"requests": {"cpu": 2, "memory": "16Gi"}, "limits": {"nvidia.com/gpu": 1}}
        assert worker(template={"resources": resources})["resources"] == resources
        assert worker()["resources"] == {"requests": {}, "limits": {}}

    def test_where_it_may_run_is_passed_on_as_it_stands(self) -> None:
        wishes: Body = {
            "nodeSelector": {"gpu": "h200"},
            "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "priorityClassName": "high",
            "runtimeClassName": "nvidia",
            "schedulerName": "volcano",
            "imagePullSecrets": [{"name": "registry"}],
            "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"},
            ],
        }
        spec = pod(template=wishes)["spec"]
        assert {name: spec[name] for name in wishes} == wishes

    def test_what_is_not_wished_is_left_out(self) -> None:
        spec = pod()["spec"]
        assert not {"nodeSelector", "tolerations", "affinity", "priorityClassName", "runtimeClassName"} & set(spec)

    @pytest.mark.parametrize(
        ("resources", "devices"),
        [
            ({}, False),
            ({"requests": {"cpu": 1, "memory": "1Gi"}}, False),
            ({"limits": {"nvidia.com/gpu": 1}}, True),
            ({"requests": {"amd.com/gpu": 1}}, True),
        ],
    )
    def test_devices_are_what_has_a_domain(self, resources: Body, devices: bool) -> None:
        assert pods.wants_devices(resource(template={"resources": resources}).spec) is devices


class TestRevision:
    """Another one replaces all workers: it must name what they are made from, and nothing else."""

    @pytest.mark.parametrize(
        "spec",
        [
            {"slots": 5},
            {"engine": {"dtype": "float32"}},
            {"engine": {"mixedChunk": True}},
            {"template": {"image": "acme/worker:2"}},
            {"template": {"env": [{"name": "A", "value": "1"}]}},
            {"template": {"labels": {"team": "red"}}},
            {"template": {"annotations": {"note": "x"}}},
            {"template": {"nodeSelector": {"gpu": "h200"}}},
            {"template": {"resources": {"limits": {"memory": "8Gi"}}}},
        ],
        ids=str,
    )
    def test_what_makes_other_pods(self, spec: Body) -> None:
        assert revision(**spec) != revision()

    @pytest.mark.parametrize(
        "spec",
        [
            {"replicas": 7},
            {"autoscaling": {"min": 0, "max": 3}},
            {"rollout": {"maxSurge": 2}},
            {"drainDeadline": "10m"},
            {"engine": {}},
            {"template": {"labels": {}}},
        ],
        ids=str,
    )
    def test_what_does_not(self, spec: Body) -> None:
        assert revision(**spec) == revision()

    def test_the_operators_own_choices_do(self) -> None:
        other = PodSettings("berth/worker:2", "worker-token")
        assert pods.revision(resource(), other, START_S) != revision()

    def test_the_order_of_labels_does_not(self) -> None:
        there = {"a": "1", "b": "2"}
        back = dict(reversed(there.items()))
        assert revision(template={"labels": there}) == revision(template={"labels": back})

    def test_it_fits_a_label_and_a_name(self) -> None:
        assert len(revision()) == 8
        assert int(revision(), 16) >= 0
