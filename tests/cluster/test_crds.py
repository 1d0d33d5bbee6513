"""Both resources at a real API server: what it takes, what it fills in, and every refusal with its words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from berth_api.crd import InferenceFleet, StreamingSession
from clusterkit.api import Api, ApiError
from crdkit import cases
from crdkit.cases import Default, Refusal, Spec
from crdkit.server import body, causes, create, path

FOLDER = Path(__file__).parents[2] / "crds"
KINDS: dict[str, Any] = {kind.__name__: kind for kind in (InferenceFleet, StreamingSession)}

pytestmark = pytest.mark.usefixtures("crds")


def _table(fleets: dict[str, Any], sessions: dict[str, Any]) -> list[Any]:
    both = {"InferenceFleet": fleets, "StreamingSession": sessions}
    return [
        pytest.param(kind, case, id=f"{kind}: {name}") for kind, rows in both.items() for name, case in rows.items()
    ]


TAKEN = _table(cases.FLEETS_TAKEN, cases.SESSIONS_TAKEN)
DEFAULTS = _table(cases.FLEET_DEFAULTS, cases.SESSION_DEFAULTS)
REFUSED = _table(cases.FLEETS_REFUSED, cases.SESSIONS_REFUSED)
CHANGES_TAKEN = _table(cases.FLEET_CHANGES_TAKEN, cases.SESSION_CHANGES_TAKEN)
CHANGES_REFUSED = _table(cases.FLEET_CHANGES_REFUSED, cases.SESSION_CHANGES_REFUSED)


@pytest.mark.parametrize(("kind", "spec"), TAKEN)
async def test_taken_as_it_is_written(api: Api, kind: str, spec: Spec) -> None:
    kept = await create(api, "default", body(kind, "taken", spec), dry_run=True)
    assert _within(spec, kept["spec"]) == spec
    KINDS[kind].model_validate(kept)


@pytest.mark.parametrize(("kind", "case"), DEFAULTS)
async def test_filled_in(api: Api, kind: str, case: Default) -> None:
    written = body(kind, "filled", case.spec)
    kept = await create(api, "default", written, dry_run=True)
    assert kept["spec"] == case.kept
    if None not in (case.spec or {}).values():
        assert KINDS[kind].model_validate(written).spec == KINDS[kind].model_validate(kept).spec


@pytest.mark.parametrize(("kind", "case"), REFUSED)
async def test_refused_with_one_message(api: Api, kind: str, case: Refusal) -> None:
    with pytest.raises(ApiError) as refused:
        await create(api, "default", body(kind, case.name, case.spec), dry_run=True)
    _blames(refused.value, case)


@pytest.mark.parametrize(("kind", "case"), CHANGES_TAKEN)
async def test_a_change_taken(api: Api, namespace: str, kind: str, case: tuple[Spec, Spec]) -> None:
    before, change = case
    await create(api, namespace, body(kind, "changed", before))
    kept = await api.patch(path(kind, namespace, "changed"), {"spec": change})
    wanted = {key: value for key, value in change.items() if value is not None}
    assert _within(wanted, kept["spec"]) == wanted
    assert not {key for key, value in change.items() if value is None} & kept["spec"].keys()


@pytest.mark.parametrize(("kind", "case"), CHANGES_REFUSED)
async def test_a_change_refused(api: Api, namespace: str, kind: str, case: tuple[Spec, Refusal]) -> None:
    before, refusal = case
    kept = await create(api, namespace, body(kind, "changed", before))
    with pytest.raises(ApiError) as refused:
        await api.patch(path(kind, namespace, "changed"), {"spec": refusal.spec})
    _blames(refused.value, refusal)
    assert (await api.get(path(kind, namespace, "changed")))["spec"] == kept["spec"]


@pytest.mark.parametrize("member", ["hostNetwork", "volumes", "serviceAccountName", "securityContext"])
async def test_no_pod_field_but_the_listed_ones(api: Api, member: str) -> None:
    spec = cases.template(**{member: {}})
    with pytest.raises(ApiError, match=f'unknown field "spec.template.{member}"'):
        await create(api, "default", body("InferenceFleet", "refused", spec), dry_run=True)
    kept = await api.call(
        "POST", path("InferenceFleet", "default"), body("InferenceFleet", "pruned", spec), query={"dryRun": "All"}
    )
    assert kept["spec"]["template"] == {}


def test_every_rule_has_its_refusal() -> None:
    created = [(row.values[0], row.values[1]) for row in REFUSED]
    changed = [(row.values[0], row.values[1][1]) for row in CHANGES_REFUSED]
    tested = {(kind, case.field.replace("[0]", "[]"), case.message) for kind, case in created + changed}
    assert set(_rules()) <= tested


def test_every_default_is_asked_for() -> None:
    shown = {row.values[0]: set() for row in DEFAULTS}
    for row in DEFAULTS:
        shown[row.values[0]] |= set(_leaves(row.values[1].kept)) - set(_leaves(row.values[1].spec or {}))
    for kind, schema in _schemas():
        defaults = {where for where, node in _nodes(schema["properties"]["spec"], "") if node.get("default", {}) != {}}
        assert {where.replace("[]", "[0]").removeprefix(".") for where in defaults} <= shown[kind]


def _blames(error: ApiError, case: Refusal) -> None:
    assert error.status == 422, error
    ((field, message),) = causes(error)
    assert field == case.field
    assert case.message in message
    assert " evaluating rule" not in message


def _within(wanted: Any, kept: Any) -> Any:
    """What is kept, without what was filled in."""
    if isinstance(wanted, dict):
        return {key: _within(value, kept[key]) for key, value in wanted.items() if key in kept}
    if isinstance(wanted, list):
        return [_within(*pair) for pair in zip(wanted, kept, strict=True)]
    return kept


def _leaves(node: Any, where: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves(value, f"{where}.{key}".removeprefix("."))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _leaves(value, f"{where}[{number}]")
    else:
        yield where


def _schemas() -> Iterator[tuple[str, dict[str, Any]]]:
    for file in FOLDER.glob("*.yaml"):
        spec = yaml.safe_load(file.read_text())["spec"]
        yield spec["names"]["kind"], spec["versions"][0]["schema"]["openAPIV3Schema"]


def _nodes(node: dict[str, Any], where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield where, node
    for name, member in node.get("properties", {}).items():
        yield from _nodes(member, f"{where}.{name}")
    if "items" in node:
        yield from _nodes(node["items"], f"{where}[]")
    if "additionalProperties" in node:
        yield from _nodes(node["additionalProperties"], f"{where}.a")


def _rules() -> Iterator[tuple[str, str, str]]:
    """Every rule as (kind, field it blames, message)."""
    for kind, schema in _schemas():
        for where, node in _nodes(schema, ""):
            for rule in node.get("x-kubernetes-validations", ()):
                yield kind, f"{where}{rule.get('fieldPath', '')}".removeprefix("."), rule["message"]
