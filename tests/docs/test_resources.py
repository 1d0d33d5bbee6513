"""The page of resources is complete and true: each field with its default and its choices, and each column."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "resources.md").read_text()
KUBERNETES_OWN = {"template.affinity", "template.tolerations", "template.topologySpreadConstraints", "conditions"}
"""Told as a whole."""

SPECS = {
    f"{kind}: {part}": (kind, part) for kind in ("InferenceFleet", "StreamingSession") for part in ("spec", "status")
}


def _definition(kind: str) -> dict[str, Any]:
    files = [yaml.safe_load(file.read_text()) for file in (REPOSITORY / "crds").glob("*.yaml")]
    version: dict[str, Any] = next(file for file in files if file["spec"]["names"]["kind"] == kind)["spec"]["versions"][
        0
    ]
    return version


def _fields(node: dict[str, Any], where: str = "") -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Every member as (path, schema, whether it is required)."""
    for name, member in node.get("properties", {}).items():
        path = f"{where}.{name}".removeprefix(".")
        yield path, member, name in node.get("required", ())
        if path not in KUBERNETES_OWN:
            yield from _fields(member, path)
            yield from _fields(member.get("items", {}), f"{path}[]")


def _schema(section: str) -> dict[str, tuple[dict[str, Any], bool]]:
    kind, part = SPECS[section]
    schema = _definition(kind)["schema"]["openAPIV3Schema"]["properties"][part]
    return {path: (member, required) for path, member, required in _fields(schema)}


def _rows(section: str) -> dict[str, list[str]]:
    """The section's table: field to the cells after it; a row may tell of several fields."""
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    rows = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            rows |= dict.fromkeys(re.findall(r"`([^`]+)`", cells[0]), cells[1:])
    return rows


def _written(default: Any) -> str:
    """A default as the page has it."""
    if default is None:
        return ""
    return default if isinstance(default, str) and default else json.dumps(default)


@pytest.mark.parametrize("section", SPECS)
def test_every_field_is_told_and_no_other(section: str) -> None:
    objects = {path for path in _schema(section) if any(other.startswith(f"{path}.") for other in _rows(section))}
    told = _rows(section).keys()
    assert told - _schema(section).keys() == set()
    assert _schema(section).keys() - objects - told == set()


@pytest.mark.parametrize("section", [section for section in SPECS if section.endswith("spec")])
def test_every_default_is_true(section: str) -> None:
    told = {field: cells[1].strip("`") for field, cells in _rows(section).items()}
    for path, (member, required) in _schema(section).items():
        default = member.get("default", "required" if required else None)
        assert told[path] == _written(default), path


@pytest.mark.parametrize("section", SPECS)
def test_every_choice_is_told(section: str) -> None:
    for path, (member, _) in _schema(section).items():
        for choice in member.get("enum", ()):
            if path in _rows(section):
                assert f"`{choice}`" in _rows(section)[path][0], path


@pytest.mark.parametrize(
    ("kind", "command"), [("InferenceFleet", "get ifl -o wide"), ("StreamingSession", "get ssn -o wide")]
)
def test_the_columns_shown_are_those_there_are(kind: str, command: str) -> None:
    shown = PAGE.split(f"$ kubectl {command}\n")[1].splitlines()[0].split()
    columns = [column["name"].upper() for column in _definition(kind)["additionalPrinterColumns"]]
    assert shown == ["NAME", *columns]


def test_the_message_of_a_bad_duration_is_the_one_given() -> None:
    schema, _ = _schema("InferenceFleet: spec")["drainDeadline"]
    assert schema["x-kubernetes-validations"][0]["message"] in " ".join(PAGE.split())
