"""The fence lets only higher pairs through, and outlives slots."""

from __future__ import annotations

import pytest

from berth_api.errors import Duplicate, Stale
from berth_worker.sessions.fence import Fence, Fences


def test_only_higher_pairs_pass():
    fences = Fences()
    fences.check("u", Fence(5, 1))
    fences.advance("u", Fence(5, 1))
    for fence in (Fence(5, 2), Fence(6, 0)):
        fences.check("u", fence)
    with pytest.raises(Duplicate) as duplicate:
        fences.check("u", Fence(5, 1))
    with pytest.raises(Stale) as stale:
        fences.check("u", Fence(4, 9))
    assert stale.value.members["seen"] == duplicate.value.members["seen"] == [5, 1]


def test_a_check_remembers_nothing():
    fences = Fences()
    fences.check("u", Fence(5, 1))
    assert fences.seen("u") is None


def test_the_least_recently_touched_session_is_forgotten_first():
    fences = Fences(limit=2)
    for uid in ("a", "b", "a", "c"):
        fences.advance(uid, Fence(1, 1))
    assert fences.seen("b") is None
    assert fences.seen("a") == fences.seen("c") == Fence(1, 1)
    assert len(fences) == 2
