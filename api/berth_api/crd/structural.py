"""From pydantic's JSON schema to the structural schema that a CRD wants.

The two differ in little: no references, no `null` (a member is absent instead), no titles, and members that nobody
named are pruned by the API server rather than forbidden by the schema. Descriptions lose their line breaks, which are
this code's and not the reader's.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

_UNKNOWN_TO_KUBERNETES = {"title", "$defs", "const"}
_FIRST = ("description", "type", "default", "enum")
"""What a reader of the file looks for first."""
_NULL = {"type": "null"}


def structural(model: type[BaseModel]) -> dict[str, Any]:
    """Return the structural schema of a type and all it consists of."""
    schema = model.model_json_schema()
    return _node(schema, schema.get("$defs", {}))


def _node(schema: dict[str, Any], types: dict[str, Any]) -> dict[str, Any]:
    schema = _inlined(schema, types)
    known = [key for key in schema if key not in _UNKNOWN_TO_KUBERNETES | set(_FIRST)]
    node = {key: schema[key] for key in (*_FIRST, *known) if schema.get(key) is not None}
    if "description" in node:
        node["description"] = " ".join(node["description"].split())
    if "properties" in node:
        node["properties"] = {name: _node(member, types) for name, member in node["properties"].items()}
    if "items" in node:
        node["items"] = _node(node["items"], types)
    if isinstance(values := node.pop("additionalProperties", None), dict):
        node["additionalProperties"] = _node(values, types)
    return node


def _inlined(schema: dict[str, Any], types: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with what it refers to in its place. What a member says of itself goes before its type's."""
    while True:
        beside = {key: value for key, value in schema.items() if key not in {"$ref", "anyOf"}}
        if "$ref" in schema:
            schema = types[schema["$ref"].removeprefix("#/$defs/")] | beside
        elif _NULL in (choices := schema.get("anyOf", [])):
            (given,) = (choice for choice in choices if choice != _NULL)
            schema = given | beside
        else:
            return schema
