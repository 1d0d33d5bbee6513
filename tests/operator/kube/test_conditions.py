"""Conditions keep the time at which they flipped."""

from __future__ import annotations

from berth_api.crd import Condition
from berth_operator.kube.conditions import MESSAGE_MOST, Fact, conditions, timestamp

THEN, NOW = 1_790_000_000.0, 1_790_000_060.9


def before(status: str = "False", type_: str = "Ready") -> Condition:
    return Condition(type=type_, status=status, reason="Old", last_transition_time=timestamp(THEN))


def test_a_time_is_written_as_kubernetes_does() -> None:
    assert timestamp(NOW) == "2026-09-21T14:14:20Z"


def test_a_new_fact_begins_now() -> None:
    (made,) = conditions([Fact("Ready", "True", "AllReady", "2 of 2")], [], 3, NOW)
    assert made == Condition(
        type="Ready",
        status="True",
        reason="AllReady",
        message="2 of 2",
        observed_generation=3,
        last_transition_time=timestamp(NOW),
    )


def test_one_that_flips_does_too() -> None:
    (made,) = conditions([Fact("Ready", "True", "AllReady")], [before("False")], 1, NOW)
    assert made.last_transition_time == timestamp(NOW)


def test_another_reason_is_no_flip() -> None:
    (made,) = conditions([Fact("Ready", "False", "ImagePull", "no such image")], [before("False")], 1, NOW)
    assert (made.reason, made.last_transition_time) == ("ImagePull", timestamp(THEN))


def test_what_is_no_fact_any_more_is_left_out() -> None:
    made = conditions([Fact("Ready", "True", "AllReady")], [before(), before("True", "Stalled")], 1, NOW)
    assert [each.type for each in made] == ["Ready"]


def test_nobody_reads_a_thousand_lines() -> None:
    (made,) = conditions([Fact("Ready", "False", "PodRefused", "x" * 100_000)], [], 1, NOW)
    assert len(made.message) == MESSAGE_MOST
