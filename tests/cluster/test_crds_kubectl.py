"""Both resources as a person meets them: kubectl get, explain, scale, wait, apply; and how a status is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from berth_api.crd import (
    Condition,
    FleetSpec,
    FleetStatus,
    History,
    LastRecovery,
    SessionSpec,
    SessionStatus,
)
from clusterkit.api import Api, ApiError
from clusterkit.kubectl import Kubectl, KubectlFailed
from clusterkit.waiting import until
from crdkit.cases import EITHER, TINY
from crdkit.server import body, create, path

EXAMPLES = Path(__file__).parents[2] / "examples"
FLEET, SESSION = "InferenceFleet", "StreamingSession"
WHEN = "2026-01-02T03:04:05Z"

pytestmark = pytest.mark.usefixtures("crds")

FLEET_STATUS = FleetStatus(
    observed_generation=1,
    phase="Degraded",
    revision="5f2c",
    replicas=3,
    ready_replicas=2,
    updated_replicas=3,
    desired_replicas=3,
    slots=16,
    selector="berth.dev/fleet=tiny",
    conditions=[
        Condition(
            type="Ready",
            status="False",
            observed_generation=1,
            last_transition_time=WHEN,
            reason="Unschedulable",
            message="2 of 3 workers serve",
        )
    ],
)
SESSION_STATUS = SessionStatus(
    observed_generation=1,
    phase="Bound",
    worker="tiny-5f2c-1",
    endpoint="/v1/sessions/default/alice",
    history=History(turns=2, head="a" * 40),
    recoveries=1,
    last_recovery=LastRecovery(from_="tiny-5f2c-0", to="tiny-5f2c-1", reason="WorkerLost", time=WHEN),
    conditions=[
        Condition(type="Ready", status="True", last_transition_time=WHEN, reason="Bound", message="it holds a slot")
    ],
)


async def _make(api: Api, namespace: str, kind: str, name: str, spec: dict[str, Any]) -> None:
    await create(api, namespace, body(kind, name, spec))


async def _report(
    api: Api, namespace: str, kind: str, name: str, status: FleetStatus | SessionStatus
) -> dict[str, Any]:
    shown = {"status": status.model_dump(mode="json", exclude_none=True)}
    return await api.patch(f"{path(kind, namespace, name)}/status", shown)


def _table(text: str) -> list[list[str]]:
    """The columns of kubectl's table; they are at least three blanks apart."""
    return [[cell.strip() for cell in line.split("   ") if cell.strip()] for line in text.splitlines()]


async def test_a_fleet_in_a_row(kubectl: Kubectl, api: Api, namespace: str) -> None:
    await _make(api, namespace, FLEET, "tiny", TINY)
    await _report(api, namespace, FLEET, "tiny", FLEET_STATUS)

    (head, row), (wide_head, wide) = (
        _table(await kubectl.raw("get", "ifl")),
        _table(await kubectl.raw("get", "ifl", "-o=wide")),
    )

    assert head == ["NAME", "READY", "REPLICAS", "DESIRED", "SLOTS", "AGE"]
    assert row[:-1] == ["tiny", "False", "3", "3", "16"]
    assert wide_head == ["NAME", "READY", "REPLICAS", "DESIRED", "SLOTS", "REVISION", "AGE", "MESSAGE"]
    assert (wide[5], wide[7]) == ("5f2c", "2 of 3 workers serve")


async def test_a_session_in_a_row(kubectl: Kubectl, api: Api, namespace: str) -> None:
    await _make(api, namespace, SESSION, "alice", {"fleet": "tiny"})
    await _report(api, namespace, SESSION, "alice", SESSION_STATUS)

    (head, row), (wide_head, wide) = (
        _table(await kubectl.raw("get", "ssn")),
        _table(await kubectl.raw("get", "ssn", "-o=wide")),
    )

    assert head == ["NAME", "READY", "PHASE", "FLEET", "WORKER", "REASON", "AGE"]
    assert row[:-1] == ["alice", "True", "Bound", "tiny", "tiny-5f2c-1", "Bound"]
    assert wide_head == ["NAME", "READY", "PHASE", "FLEET", "WORKER", "RECOVERIES", "REASON", "AGE"]
    assert wide[5] == "1"


async def test_all_of_it_by_one_word(kubectl: Kubectl, api: Api, namespace: str) -> None:
    await _make(api, namespace, FLEET, "tiny", TINY)
    await _make(api, namespace, SESSION, "alice", {})
    assert (await kubectl.raw("get", "berth", "-o=name")).split() == [
        "inferencefleet.berth.dev/tiny",
        "streamingsession.berth.dev/alice",
    ]


@pytest.mark.parametrize(("what", "spec"), [("ifl.spec", FleetSpec), ("ssn.spec", SessionSpec)])
async def test_every_field_is_explained(kubectl: Kubectl, what: str, spec: type[FleetSpec | SessionSpec]) -> None:
    async def explained() -> bool:
        """What can be explained is published a moment after the resource can be made."""
        try:
            words = " ".join((await kubectl.raw("explain", what)).split())
        except KubectlFailed:
            return False
        fields = spec.model_fields.values()
        return all(f"{field.alias} <" in words and " ".join(field.description.split()) in words for field in fields)

    await until(explained, f"kubectl explain {what}")


async def test_explaining_goes_to_the_bottom(kubectl: Kubectl) -> None:
    async def explained() -> bool:
        said = await kubectl.raw("explain", "ifl.spec.model.huggingFace.tokenSecretRef.key")
        return "FIELD: key <string>" in said and "The key within it." in said

    await until(explained, "kubectl explain of a nested field")


async def test_a_fleet_is_scaled(kubectl: Kubectl, api: Api, namespace: str) -> None:
    await _make(api, namespace, FLEET, "tiny", TINY | {"replicas": 2})
    await _report(api, namespace, FLEET, "tiny", FLEET_STATUS)

    assert (await kubectl.raw("scale", "ifl/tiny", "--replicas=5")).strip() == "inferencefleet.berth.dev/tiny scaled"

    scale = await api.get(f"{path(FLEET, namespace, 'tiny')}/scale")
    assert (scale["spec"], scale["status"]) == ({"replicas": 5}, {"replicas": 3, "selector": "berth.dev/fleet=tiny"})
    with pytest.raises(KubectlFailed, match="should be less than or equal to 5000"):
        await kubectl.raw("scale", "ifl/tiny", "--replicas=5001")


async def test_a_fleet_without_a_number_gets_one(kubectl: Kubectl, api: Api, namespace: str) -> None:
    await _make(api, namespace, FLEET, "tiny", TINY)
    await kubectl.raw("scale", "ifl/tiny", "--replicas=5")
    assert (await kubectl.get("ifl", "tiny"))["spec"]["replicas"] == 5


async def test_a_fleet_that_scales_itself_is_not_scaled(kubectl: Kubectl, api: Api, namespace: str) -> None:
    await _make(api, namespace, FLEET, "tiny", TINY | {"autoscaling": {"min": 1, "max": 2}})
    with pytest.raises(KubectlFailed, match=EITHER):
        await kubectl.raw("scale", "ifl/tiny", "--replicas=5")


async def test_ready_can_be_waited_for(kubectl: Kubectl, api: Api, namespace: str) -> None:
    await _make(api, namespace, SESSION, "alice", {})
    with pytest.raises(KubectlFailed, match="timed out waiting for the condition"):
        await kubectl.wait("ssn/alice", "condition=Ready", timeout_s=0.1)
    await _report(api, namespace, SESSION, "alice", SESSION_STATUS)
    await kubectl.wait("ssn/alice", "condition=Ready")


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: file.name)
@pytest.mark.parametrize("how", [(), ("--server-side",)], ids=["apply", "server-side apply"])
async def test_an_example_applied_twice_is_unchanged(kubectl: Kubectl, how: tuple[str, ...], file: Path) -> None:
    first = await kubectl.raw("apply", "-f", str(file), *how, "-o=json")
    assert await kubectl.raw("apply", "-f", str(file), *how, "-o=json") == first
    assert await kubectl.raw("diff", "-f", str(file), *how) == ""


@pytest.mark.parametrize(
    ("kind", "spec", "status"), [(FLEET, TINY, FLEET_STATUS), (SESSION, {}, SESSION_STATUS)], ids=[FLEET, SESSION]
)
async def test_a_status_is_kept_as_written_and_apart(
    api: Api, namespace: str, kind: str, spec: dict[str, Any], status: FleetStatus | SessionStatus
) -> None:
    shown = status.model_dump(mode="json", exclude_none=True)
    made = await create(api, namespace, body(kind, "a", spec) | {"status": shown})
    assert "status" not in made

    kept = await _report(api, namespace, kind, "a", status)

    assert kept["status"] == shown
    assert (kept["spec"], kept["metadata"]["generation"]) == (made["spec"], 1)


async def test_two_managers_each_keep_their_condition(api: Api, namespace: str) -> None:
    await _make(api, namespace, SESSION, "a", {})
    where = f"{path(SESSION, namespace, 'a')}/status"
    for type_ in ("Ready", "Bound", "Ready"):
        condition = {"type": type_, "status": "True", "reason": "Bound", "message": "", "lastTransitionTime": WHEN}
        applied = body(SESSION, "a", None) | {"status": {"conditions": [condition]}}
        kept = await api.call(
            "PATCH", where, applied, kind="application/apply-patch+yaml", query={"fieldManager": f"of-{type_.lower()}"}
        )
    assert [condition["type"] for condition in kept["status"]["conditions"]] == ["Ready", "Bound"]


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ({"phase": "Happy"}, 'Unsupported value: "Happy"'),
        ({"recoveries": -1}, "should be greater than or equal to 0"),
        ({"conditions": [{"type": "Ready", "status": "Yes", "reason": "A", "lastTransitionTime": WHEN}]}, '"Yes"'),
        (
            {"conditions": [{"type": "Ready", "status": "True", "reason": "A", "lastTransitionTime": "now"}]},
            "date-time",
        ),
        (
            {"conditions": 2 * [{"type": "Ready", "status": "True", "reason": "A", "lastTransitionTime": WHEN}]},
            "Duplicate",
        ),
        ({"lastRecovery": {"from": "a", "to": "b", "reason": "Why", "time": WHEN}}, 'Unsupported value: "Why"'),
    ],
)
async def test_a_status_that_makes_no_sense_is_refused(
    api: Api, namespace: str, status: dict[str, Any], told: str
) -> None:
    await _make(api, namespace, SESSION, "a", {})
    with pytest.raises(ApiError, match=told):
        await api.patch(f"{path(SESSION, namespace, 'a')}/status", {"status": status})
