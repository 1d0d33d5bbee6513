"""examples/: each can be applied as it stands, and together they show what there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from berth_api.crd import FleetSpec, InferenceFleet, SessionSpec, StreamingSession

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
KINDS = {kind.__name__: kind for kind in (InferenceFleet, StreamingSession)}


def _read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(file.read_text())
    return content


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_an_example_is_what_its_kind_takes(file: Path) -> None:
    body = _read(file)
    KINDS[body["kind"]].model_validate(body)
    assert file.read_text().startswith("# "), "it says first what it shows"


def test_sessions_name_fleets_that_are_there() -> None:
    bodies = [_read(file) for file in EXAMPLES]
    fleets = {body["metadata"]["name"] for body in bodies if body["kind"] == "InferenceFleet"}
    named = {body["spec"]["fleet"] for body in bodies if body["kind"] == "StreamingSession"}
    assert named <= fleets


@pytest.mark.parametrize("spec", [FleetSpec, SessionSpec])
def test_every_member_of_a_spec_is_shown_once(spec: type[FleetSpec | SessionSpec]) -> None:
    shown = {key for file in EXAMPLES for key in _read(file)["spec"]}
    assert {field.alias for field in spec.model_fields.values()} <= shown
