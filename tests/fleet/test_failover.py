"""The promise itself, at a few of the points that `failover.py` strikes at: killed streams equal unfailed ones."""

from __future__ import annotations

import pytest
from failover import points, run, summary


@pytest.mark.asyncio(loop_scope="session")
async def test_streams_killed_at_random_points_equal_unfailed_ones(fleet, up_client):
    results = await run(fleet, up_client, points(4, seed=7)[2:])
    assert [result.fault for result in results] == ["", ""]
    assert summary(results)["deaths"] == 3


def test_twenty_points_have_both_ways_of_drawing_and_double_kills():
    made = points(20, seed=1)
    assert {point.greedy for point in made} == {True, False}
    assert sum(len(point.kills) == 2 for point in made) == 5
    assert made == points(20, seed=1)
