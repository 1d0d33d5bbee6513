"""What every type of the resources shares, and how a rule of theirs is written down.

A type's docstring and the docstrings under its fields become the text of `kubectl explain`. A default becomes the API
server's default; what is made by a factory is a reader's convenience and stays out of the stored object.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, JsonValue, model_validator
from pydantic.alias_generators import to_camel

GROUP: Final = "berth.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = "berth.dev/v1alpha1"

RULES = "x-kubernetes-validations"

_NAMES = ConfigDict(
    alias_generator=to_camel,
    validate_by_name=True,
    serialize_by_alias=True,
    use_attribute_docstrings=True,
    frozen=True,
)


class Rule(NamedTuple):
    """A CEL expression that the API server evaluates, and what a person reads where it is false."""

    cel: str
    message: str
    field: str = ""
    """The member the message is about, where it is about one."""

    def schema(self) -> dict[str, JsonValue]:
        """Return the rule as it stands in a schema."""
        where: dict[str, JsonValue] = {"fieldPath": f".{self.field}"} if self.field else {}
        return {"rule": self.cel, "message": self.message, **where}


def ruled(*rules: Rule) -> dict[str, JsonValue]:
    """Return the schema extension of what has to keep these rules."""
    return {RULES: [rule.schema() for rule in rules]}


def keyed_by(*keys: str) -> dict[str, JsonValue]:
    """Return a list's schema extension: its items are told apart by these members, which no two may share."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


class Part(BaseModel):
    """A part of a spec. Members it does not know are refused: an order that is not understood must not look obeyed."""

    model_config = _NAMES | ConfigDict(extra="forbid")


class Report(BaseModel):
    """A part of a status. A newer operator may have written more than this one knows."""

    model_config = _NAMES | ConfigDict(extra="ignore")


class Resource(BaseModel):
    """A whole object as the API server keeps it."""

    model_config = _NAMES | ConfigDict(extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _any_mapping(cls, body: Any) -> Any:
        """Let a framework's read-only view of an object pass for the object."""
        return dict(body) if isinstance(body, Mapping) else body
