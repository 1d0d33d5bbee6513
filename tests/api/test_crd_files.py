"""crds/*.yaml: what the types generate, and of a form that an API server can hold any user to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from berth_api.crd.__main__ import main, text
from berth_api.crd.definitions import DEFINITIONS, FLEETS, Definition

REPOSITORY = Path(__file__).parents[2]

Node = dict[str, Any]


def _nodes(node: Node, path: str = "") -> Iterator[tuple[str, Node]]:
    """Every schema within a schema, with its path; what metadata holds is the API server's."""
    yield path, node
    for name, member in node.get("properties", {}).items():
        if (path, name) not in {("", "metadata"), ("", "apiVersion"), ("", "kind")}:
            yield from _nodes(member, f"{path}.{name}")
    if "items" in node:
        yield from _nodes(node["items"], f"{path}[]")
    if "additionalProperties" in node:
        yield from _nodes(node["additionalProperties"], f"{path}{{}}")


def _schema(definition: Definition) -> Node:
    schema: Node = definition.manifest()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


EVERY = [
    (f"{definition.short}{path}", node) for definition in DEFINITIONS for path, node in _nodes(_schema(definition))
]


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda definition: definition.plural)
def test_the_files_are_what_the_types_generate(definition: Definition) -> None:
    kept = (REPOSITORY / "crds" / f"{definition.plural}.yaml").read_text()
    assert kept == text(definition), "the types have changed: say `make crds`"


def test_the_folder_holds_nothing_else() -> None:
    assert {file.name for file in (REPOSITORY / "crds").iterdir()} == {f"{d.plural}.yaml" for d in DEFINITIONS}


def test_the_generator_writes_files_that_read_back(tmp_path: Path) -> None:
    main(tmp_path / "new" / "folder")
    written = yaml.safe_load((tmp_path / "new" / "folder" / "inferencefleets.yaml").read_text())
    assert written == FLEETS.manifest()


def _bounded(node: Node) -> bool:
    if "enum" in node or node.get("format") == "date-time":
        return True
    bounds = {
        "string": {"maxLength"},
        "integer": {"minimum", "maximum"},
        "array": {"maxItems"},
        "boolean": set(),
        "object": {"maxProperties"} if "additionalProperties" in node else {"properties"},
        None: {"x-kubernetes-int-or-string", "maxLength", "minimum"},
    }
    return bounds[node.get("type")] <= node.keys()


def test_everything_has_a_bound() -> None:
    assert not [path for path, node in EVERY if not _bounded(node)]


def test_it_is_structural() -> None:
    foreign = {"$ref", "$defs", "title", "const", "oneOf", "allOf", "x-kubernetes-preserve-unknown-fields"}
    assert not [path for path, node in EVERY if node.keys() & foreign]
    assert not [path for path, node in EVERY if ("anyOf" in node) != ("x-kubernetes-int-or-string" in node)]
    assert not [path for path, node in EVERY if ("type" in node) == ("x-kubernetes-int-or-string" in node)]
    assert not [path for path, node in EVERY if node.get("default", ...) is None]


def test_every_member_is_explained() -> None:
    members = [(path, node) for path, node in EVERY if not path.endswith(("[]", "{}"))]
    assert not [path for path, node in members if not 5 < len(node.get("description", "")) < 300]
    assert not [path for path, node in members if "\n" in node["description"]]


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda definition: definition.plural)
def test_nothing_is_mounted_and_nobody_is_impersonated(definition: Definition) -> None:
    names = {path.rsplit(".", 1)[-1].lower() for path, _ in _nodes(_schema(definition))}
    assert not names & {"hostpath", "volumes", "volumemounts", "securitycontext", "privileged"}
    assert not names & {"serviceaccountname", "hostnetwork", "hostpid", "hostipc", "initcontainers", "command", "args"}


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda definition: definition.plural)
def test_lists_of_named_things_are_told_apart_by_name(definition: Definition) -> None:
    """Two managers may each own items of such a list, and no name may be there twice."""
    for path, node in _nodes(_schema(definition)):
        if path.endswith((".conditions", ".env", ".imagePullSecrets")):
            key = "type" if path.endswith(".conditions") else "name"
            assert (node["x-kubernetes-list-type"], node["x-kubernetes-list-map-keys"]) == ("map", [key])
            assert key in node["items"]["required"]
