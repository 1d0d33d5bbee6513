"""The arithmetic of a comparison goes wrong silently, so each formula is held against numbers worked out by hand."""

from __future__ import annotations

import pytest
from figures import Heard, Spread, agreeing, floor_ms, ratios


def heard(*times: float) -> Heard:
    """A turn that began at 10 s, with an id at each of `times`."""
    made = Heard(10.0)
    for number, at in enumerate(times):
        made.take([number], at)
    return made


def test_the_first_id_is_timed_from_the_beginning():
    assert heard(10.25, 10.5).first_ms == pytest.approx(250)


def test_later_ids_are_timed_from_the_first():
    assert heard(10.25, 10.26, 10.27, 10.29).later_ms == pytest.approx(40 / 3)


def test_ids_that_came_with_the_first_are_no_later_ids():
    made = Heard(10.0)
    made.take([7, 8, 9], 10.5)
    made.take([1, 2], 10.6)
    assert made.ids == [7, 8, 9, 1, 2]
    assert made.later_ms == pytest.approx(50)


def test_a_turn_of_one_id_has_no_later_time():
    with pytest.raises(ValueError, match="no id came after the first"):
        _ = heard(10.5).later_ms


def test_a_spread_is_least_median_most():
    assert Spread.of([5.0, 1.0, 2.0]) == Spread(1.0, 2.0, 5.0)
    assert Spread.of([4.0, 1.0, 2.0, 3.0]).middle == 2.5
    with pytest.raises(ValueError, match="no values"):
        Spread.of([])


def test_a_spread_reads_with_as_many_digits_as_it_has():
    assert str(Spread(0.123, 12.34, 1234.5)) == "12.3 (0.12 … 1234)"


def test_ratios_are_taken_within_a_round():
    # The second round was ten times slower for both: no ratio may know.
    assert ratios([2.0, 20.0], [1.0, 10.0]) == Spread(2.0, 2.0, 2.0)
    assert ratios([1.0, 6.0, 2.0], [2.0, 2.0, 2.0]) == Spread(0.5, 1.0, 3.0)
    with pytest.raises(ValueError):
        ratios([1.0, 2.0], [1.0])


def test_the_floor_is_all_bytes_at_the_ceiling():
    assert floor_ms(weights=180_000_000, kv=20_000_000, ceiling=20e9) == pytest.approx(10)


def test_agreement_ends_at_the_first_difference():
    assert agreeing([1, 2, 3, 4], [1, 2, 9, 4]) == 2
    assert agreeing([1, 2], [1, 2, 3]) == 2
    assert agreeing([5], [6]) == 0
