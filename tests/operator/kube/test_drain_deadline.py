"""How long a pod may take to end reaches its worker, and is no reason to replace one."""

from __future__ import annotations

from typing import Any

from berth_api.crd import InferenceFleet
from berth_operator.kube.pods import pod, revision
from berth_operator.kube.settings import PodSettings
from berth_operator.model import FleetKey, Place

SETTINGS = PodSettings(image="berth/worker", token_secret="token")


def fleet(**spec: Any) -> InferenceFleet:
    metadata = {"name": "tiny", "namespace": "lab", "uid": "1"}
    return InferenceFleet.model_validate({"metadata": metadata, "spec": {"model": {"builtin": "berth-tiny"}, **spec}})


def spec_of(wanted: InferenceFleet) -> dict[str, Any]:
    made: dict[str, Any] = pod(wanted, Place(FleetKey("lab", "tiny"), 0, "a"), SETTINGS, 60.0)["spec"]
    return made


def test_the_worker_gets_the_deadline_and_its_pod_a_little_more() -> None:
    made = spec_of(fleet(drainDeadline="1m30s"))
    (worker,) = made["containers"]
    assert worker["args"][worker["args"].index("--drain-s") + 1] == "90"
    assert 90 < made["terminationGracePeriodSeconds"] <= 120


def test_another_deadline_is_no_other_revision() -> None:
    first, other, bigger = (
        revision(wanted, SETTINGS, 60.0) for wanted in (fleet(), fleet(drainDeadline="3s"), fleet(slots=9))
    )
    assert first == other != bigger
