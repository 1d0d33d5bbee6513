"""Durations out of single looks."""

from berth_operator.since import since


def test_keeps_the_beginning_and_forgets_what_ended() -> None:
    first = since({}, ["a", "b"], 1.0)
    second = since(first, ["b", "c"], 2.0)
    assert second == {"b": 1.0, "c": 2.0}
    assert since(second, ["a"], 3.0) == {"a": 3.0}
