"""Native sessions: one turn at a time, closed when told or when idle for too long."""

from __future__ import annotations

import numpy as np
import pytest

from berth_api.errors import InvalidRequest, NoSuchSession
from berth_worker.sessions.native import NativeSessions, NativeTurn


@pytest.fixture
def sessions() -> NativeSessions:
    sessions = NativeSessions()
    sessions.open("s", 100, 10.0, now=0.0)
    return sessions


def ids(*tokens: int) -> np.ndarray:
    return np.array(tokens, np.int32)


def begin(sessions: NativeSessions) -> NativeTurn:
    """Begin a turn of the streaming session `s`."""
    start = sessions.ready("s")
    sessions.begin(start)
    return NativeTurn(start.session, start.place, prompt=1)


def test_ids_are_given_or_made():
    sessions = NativeSessions()
    assert sessions.open("mine", 10, None, 0.0) == "mine"
    assert sessions.open(None, 10, None, 0.0) != sessions.open(None, 10, None, 0.0)


def test_an_open_id_cannot_be_opened(sessions):
    with pytest.raises(InvalidRequest, match="open already"):
        sessions.open("s", 5, None, 0.0)
    assert sessions.ready("s").session.capacity == 100


def test_a_turn_in_flight_excludes_another(sessions):
    turn = begin(sessions)
    with pytest.raises(InvalidRequest, match="in flight"):
        sessions.ready("s")
    sessions.end(turn, ids(1, 2), now=1.0)
    assert sessions.ready("s").ids.tolist() == [1, 2]


def test_an_abort_keeps_the_history(sessions):
    turn = begin(sessions)
    sessions.end(turn, ids(1), now=1.0)
    turn = begin(sessions)
    sessions.end(turn, None, now=2.0)
    assert sessions.ready("s").ids.tolist() == [1]


def test_close_waits_for_the_running_turn(sessions):
    turn = begin(sessions)
    assert not sessions.close("s")
    assert not sessions.close("s")
    with pytest.raises(InvalidRequest, match="closing"):
        sessions.ready("s")
    assert sessions.end(turn, None, now=1.0)
    with pytest.raises(NoSuchSession):
        sessions.close("s")


def test_a_closed_id_may_be_opened_again_and_is_empty(sessions):
    turn = begin(sessions)
    sessions.end(turn, ids(1), now=0.0)
    assert sessions.close("s")
    sessions.open("s", 5, None, 0.0)
    assert not len(sessions.ready("s").ids)


def test_the_idle_clock_starts_at_a_turns_end_and_stands_still_during_one(sessions):
    turn = begin(sessions)
    assert sessions.reap(1000.0) == []
    sessions.end(turn, None, now=1000.0)
    assert sessions.reap(1010.0) == []
    assert sessions.reap(1010.1) == ["s"]
    with pytest.raises(InvalidRequest, match="not open"):
        sessions.ready("s")


def test_without_a_timeout_a_session_stays():
    sessions = NativeSessions()
    sessions.open("s", 5, None, 0.0)
    assert sessions.reap(1e9) == []
