"""A fleet that follows its load."""

from __future__ import annotations

import pytest

from berth_operator.autoscale import Bounds, Demand, Stabilizer, wanted

BOUNDS = Bounds(least=1, most=5, buffer_slots=2)
TO_ZERO = Bounds(least=0, most=5, buffer_slots=0)


@pytest.mark.parametrize(
    ("held", "waiting", "workers"),
    [(0, 0, 1), (1, 0, 1), (6, 0, 1), (7, 0, 2), (6, 1, 2), (14, 0, 2), (15, 0, 3), (1000, 0, 5)],
)
def test_slots_in_use_and_the_buffer_decide(held: int, waiting: int, workers: int) -> None:
    assert wanted(BOUNDS, 8, Demand(held, waiting)) == workers


def test_an_unused_fleet_goes_to_zero_and_the_first_waiting_turn_wakes_it() -> None:
    assert wanted(TO_ZERO, 8, Demand(0, 0)) == 0
    assert wanted(TO_ZERO, 8, Demand(0, 1)) == 1


def test_a_buffer_keeps_a_worker() -> None:
    assert wanted(Bounds(least=0, most=5, buffer_slots=1), 8, Demand(0, 0)) == 1


class TestStabilizer:
    def test_growing_is_at_once(self) -> None:
        assert Stabilizer(1, now=0.0).follow(3, 0.0, 300.0) == 3

    def test_shrinking_waits_for_the_window(self) -> None:
        stabilizer = Stabilizer(3, now=0.0)
        assert stabilizer.follow(1, 10.0, 300.0) == 3
        assert stabilizer.follow(1, 299.0, 300.0) == 3
        assert stabilizer.follow(1, 300.0, 300.0) == 1

    def test_a_peak_within_the_window_starts_it_anew(self) -> None:
        stabilizer = Stabilizer(3, now=0.0)
        stabilizer.follow(1, 100.0, 300.0)
        stabilizer.follow(2, 250.0, 300.0)
        assert stabilizer.follow(1, 400.0, 300.0) == 2
        assert stabilizer.follow(1, 551.0, 300.0) == 1

    def test_what_is_remembered_does_not_grow(self) -> None:
        stabilizer = Stabilizer(3, now=0.0)
        for second in range(10_000):
            stabilizer.follow(2, float(second), 300.0)
        assert len(stabilizer._wanted) <= 2
