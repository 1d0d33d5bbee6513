"""What both resources report in the same way."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from berth_api.crd.base import Report, keyed_by

Time = Annotated[str, Field(max_length=64, json_schema_extra={"format": "date-time"})]
Generation = Annotated[int, Field(ge=0, le=1 << 53)]
Count = Annotated[int, Field(ge=0, le=1 << 31)]


class Condition(Report):
    """One fact about the resource, and why it holds."""

    type: Annotated[str, Field(min_length=1, max_length=316)]
    """The fact, such as Ready."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    observed_generation: Generation | None = None
    """The metadata.generation that this was found out for."""
    last_transition_time: Time
    """When status last changed."""
    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    """Why, in one word, for programs."""
    message: Annotated[str, Field(max_length=32768)] = Field(default_factory=str)
    """Why, in a sentence, for people."""


Conditions = Annotated[list[Condition], Field(max_length=16, json_schema_extra=keyed_by("type"))]
