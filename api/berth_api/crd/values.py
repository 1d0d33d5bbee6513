"""Texts with a form of their own: durations, names, labels, quantities.

What the API server checks by a rule, `model_validate` checks with the same words, so that an example that is read here
is one that can be applied.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from berth_api.crd.base import Rule, ruled

LONGEST_H = 8760
"""Hours of the longest duration: a year, as in the gateway's interface."""

# Each unit once and in order, few digits each: no sum can overflow what CEL and Go count nanoseconds in.
_DURATION = re.compile(
    r"^([0-9]{1,4}(\.[0-9]{1,3})?h)?([0-9]{1,6}(\.[0-9]{1,3})?m)?([0-9]{1,8}(\.[0-9]{1,3})?s)?([0-9]{1,9}ms)?$"
)
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION_MESSAGE = f"must be a duration such as 90s, 10m or 1h30m: more than 0, at most {LONGEST_H}h"
_LABEL = "[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_QUANTITY = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$"


def seconds(text: str) -> float:
    """Return a duration such as `90s`, `10m` or `1h30m` in seconds.

    Raises ValueError where it is none, is 0, or is longer than a year.
    """
    if _DURATION.fullmatch(text):
        total = sum(float(n) * _UNITS[unit] for n, unit in re.findall(r"([0-9.]+)(ms|h|m|s)", text))
        if 0 < total <= LONGEST_H * 3600:
            return total
    raise ValueError(_DURATION_MESSAGE)


@dataclass(frozen=True)
class Checked:
    """Annotates a text: `check` is the rule's twin on this side, and raises ValueError with the same message."""

    rule: Rule
    check: Callable[[str], object]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._pass, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(schema) | ruled(self.rule)

    def _pass(self, text: str) -> str:
        self.check(text)
        return text


def matching(pattern: str, message: str) -> Checked:
    """Return the check that a text has a form, told in words: a bare pattern makes a poor message."""
    form = re.compile(pattern)

    def check(text: str) -> None:
        if not form.fullmatch(text):
            raise ValueError(message)

    return Checked(Rule(f"self.matches(r'{pattern}')", message), check)


Duration = Annotated[
    str,
    Field(max_length=32),
    Checked(
        Rule(
            f"self != '' && self.matches(r'{_DURATION.pattern}') && duration(self) > duration('0s') && "
            f"duration(self) <= duration('{LONGEST_H}h')",
            _DURATION_MESSAGE,
        ),
        seconds,
    ),
]

FLEET_NAME_MAX = 45
"""Characters of a fleet's name: with revision and ordinal it has to fit a pod's host name and a label, 63 each."""

LABEL_FORM = (f"^{_LABEL}$", "must be an RFC 1123 label: a-z, 0-9 and -, with a letter or a digit at both ends")

FleetName = Annotated[str, Field(max_length=FLEET_NAME_MAX), matching(*LABEL_FORM)]
"""A fleet's name."""

ObjectName = Annotated[
    str,
    Field(max_length=253),
    matching(
        rf"^{_LABEL}(\.{_LABEL})*$",
        "must be an RFC 1123 name: a-z, 0-9, - and ., with a letter or a digit at both ends of each part",
    ),
]
"""The name of some object of the cluster."""

LabelValue = Annotated[
    str,
    Field(max_length=63),
    matching(
        "^([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?$",
        "must be a label's value: letters, digits, -, _ and ., with a letter or a digit at both ends, or empty",
    ),
]

LabelKey = Annotated[str, Field(min_length=1, max_length=317)]
"""A label's key: a prefix of 253, a slash and 63 characters."""

Quantity = Annotated[
    Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=_QUANTITY, max_length=32)],
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "minimum": 0,
            "pattern": _QUANTITY,
            "maxLength": 32,
        }
    ),
]
"""An amount as Kubernetes writes it, such as 2, 500m or 16Gi."""
