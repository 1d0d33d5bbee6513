"""Conditions: a status that flips carries the time it flipped, one that stays keeps it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from berth_api.crd import Condition

Truth = Literal["True", "False", "Unknown"]
MESSAGE_MOST = 2000
"""Characters: an API server's or a gateway's own words may be longer than anybody reads."""


class Fact(NamedTuple):
    """A condition without its history."""

    type: str
    status: Truth
    reason: str
    message: str = ""


def conditions(facts: Iterable[Fact], before: Iterable[Condition], generation: int, now: float) -> list[Condition]:
    """Return the facts as conditions; what is no fact any more is left out."""
    known = {each.type: each for each in before}
    return [_condition(fact, known.get(fact.type), generation, now) for fact in facts]


def timestamp(now: float) -> str:
    """Return a time as Kubernetes writes it: UTC, to the second."""
    return datetime.fromtimestamp(int(now), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _condition(fact: Fact, before: Condition | None, generation: int, now: float) -> Condition:
    same = before is not None and before.status == fact.status
    return Condition(
        type=fact.type,
        status=fact.status,
        observed_generation=generation,
        last_transition_time=before.last_transition_time if before is not None and same else timestamp(now),
        reason=fact.reason,
        message=fact.message[:MESSAGE_MOST],
    )
