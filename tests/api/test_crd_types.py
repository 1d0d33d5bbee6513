"""Reading the custom resources: `model_validate` takes what the API server sends and refuses what it would refuse."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import kopf
import pytest
from pydantic import ValidationError

from berth_api.crd import (
    Condition,
    FleetSpec,
    InferenceFleet,
    LastRecovery,
    SessionSpec,
    SessionStatus,
    StreamingSession,
    seconds,
)

FLEET: dict[str, Any] = {
    "apiVersion": "berth.dev/v1alpha1",
    "kind": "InferenceFleet",
    "metadata": {"name": "default", "uid": "u"},
    "spec": {"model": {"builtin": "berth-tiny"}},
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", 90),
        ("10m", 600),
        ("1h30m", 5400),
        ("1h0m0s", 3600),
        ("1.5h", 5400),
        ("500ms", 0.5),
        ("1s1ms", 1.001),
        ("8760h", 31_536_000),
    ],
)
def test_durations_are_read_in_seconds(text: str, expected: float) -> None:
    assert seconds(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    "text",
    ["", "0s", "0h0m", "-5m", "+5m", "5", "5 m", "m", "5d", "1m1h", "1m1m", ".5h", "1e3s", "8760h1s", "1m\n", "٣s"],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a duration such as 90s, 10m or 1h30m"):
        seconds(text)


def test_a_small_fleet_is_read_with_all_defaults() -> None:
    spec = InferenceFleet.model_validate(FLEET).spec
    assert (spec.slots, spec.drain_deadline, spec.replicas, spec.autoscaling, spec.rollout) == (
        8,
        "2m",
        None,
        None,
        None,
    )
    assert (spec.engine.dtype, spec.template.labels, spec.template.resources.limits) == (None, {}, {})


def test_a_session_needs_no_spec() -> None:
    session = StreamingSession.model_validate({"metadata": {"name": "alice"}})
    assert session.spec == SessionSpec(fleet="default", suspend=False, on_worker_failure="Continue")
    assert session.spec.deletion_policy == "Close"


def test_a_frameworks_view_of_an_object_is_read_like_the_object() -> None:
    assert InferenceFleet.model_validate(kopf.Body(FLEET)) == InferenceFleet.model_validate(FLEET)


def test_a_status_may_hold_more_than_this_version_knows() -> None:
    fleet = InferenceFleet.model_validate(FLEET | {"status": {"readyReplicas": 2, "invented": {"later": 1}}})
    assert fleet.status is not None
    assert fleet.status.ready_replicas == 2


def test_a_status_is_written_as_kubernetes_names_it() -> None:
    when = "2026-01-02T03:04:05Z"
    status = SessionStatus(
        phase="Bound",
        last_recovery=LastRecovery(from_="a", to="b", reason="WorkerLost", time=when),
        conditions=[Condition(type="Ready", status="True", last_transition_time=when, reason="Bound")],
    )
    assert status.model_dump(mode="json", exclude_none=True) == {
        "phase": "Bound",
        "lastRecovery": {"from": "a", "to": "b", "reason": "WorkerLost", "time": when},
        "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": when, "reason": "Bound", "message": ""}
        ],
    }


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({}, "model"),
        ({"model": {"builtin": "Berth Tiny"}}, "must be a built-in model's name"),
        ({"model": {"pvc": {"claimName": "models", "path": "models"}}}, "must be an absolute path"),
        ({"model": {"pvc": {"claimName": "models", "path": "/a/../b"}}}, "must be an absolute path"),
        ({"model": {"pvc": {"claimName": "Models"}}}, "must be an RFC 1123 name"),
        ({"slots": 0}, "greater than or equal to 1"),
        ({"drainDeadline": "2 minutes"}, "must be a duration"),
        ({"template": {"hostNetwork": True}}, "hostNetwork"),
        ({"template": {"env": [{"name": "1X"}]}}, "no digit first"),
        ({"template": {"labels": {"a": "b c"}}}, "must be a label's value"),
        ({"template": {"resources": {"limits": {"cpu": "many"}}}}, "pattern"),
        ({"template": {"resources": {"limits": {"cpu": -1}}}}, "greater than or equal to 0"),
    ],
)
def test_a_bad_spec_is_refused_and_the_field_named(spec: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        FleetSpec.model_validate({"model": {"builtin": "berth-tiny"}} | spec if spec else {})


def test_the_wire_is_imported_without_pydantic() -> None:
    """A worker's image carries none."""
    code = "import berth_api.wire, berth_api.admin, sys; sys.exit('pydantic' in sys.modules or 'yaml' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
