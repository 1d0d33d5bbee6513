"""Heads name histories; a request may build on any of those that are known."""

from __future__ import annotations

import numpy as np
import pytest

from berth_api.errors import HistoryRequired, InvalidRequest
from berth_api.wire import Sampling, TurnRequest
from berth_worker.sessions.gateway import resolve
from berth_worker.sessions.history import EMPTY, MARKS_KEPT, common_prefix
from workerkit.driver import head_of, pack

TURNS = [[1, 2, 3], [4, 5], [6]]
HELD = EMPTY.extend([pack(turn) for turn in TURNS])


def request(**options) -> TurnRequest:
    defaults = {
        "session": "d/s",
        "uid": "u",
        "turn": "t",
        "epoch": 1,
        "attempt": 1,
        "parent": "",
        "input_ids": pack([9]),
    }
    return TurnRequest(**(defaults | {"seed": 1, "sampling": Sampling(), "fingerprint": "f"} | options))


def test_a_history_knows_every_turns_head():
    assert HELD.ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert HELD.head == head_of(*TURNS)
    assert HELD.have == [head_of(*TURNS), head_of(*TURNS[:2]), head_of(*TURNS[:1])]


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_any_known_head_can_be_gone_back_to(turns):
    start = resolve(request(parent=head_of(*TURNS[:turns])), HELD)
    assert start.parent.ids.tolist() == [token for turn in TURNS[:turns] for token in turn]
    assert start.parent.head == head_of(*TURNS[:turns])
    assert start.reuse == len(start.parent.ids)


def test_an_unknown_parent_needs_history():
    with pytest.raises(HistoryRequired) as refused:
        resolve(request(parent="beef"), HELD)
    assert refused.value.members["have"] == HELD.have
    with pytest.raises(HistoryRequired) as refused:
        resolve(request(parent="beef"), None)
    assert refused.value.members["have"] == []


def test_history_from_a_known_base_is_appended():
    parent = head_of(*TURNS[:2], [7, 8])
    start = resolve(request(parent=parent, history=[pack([7, 8])], history_base=head_of(*TURNS[:2])), HELD)
    assert start.parent.ids.tolist() == [1, 2, 3, 4, 5, 7, 8]
    assert start.reuse == 5


def test_history_from_an_unknown_base_is_not_enough():
    with pytest.raises(HistoryRequired):
        resolve(request(parent="beef", history=[pack([7])], history_base="dead"), HELD)


def test_whole_history_is_never_refused_and_keeps_the_kv_that_matches():
    turns = [[1, 2, 3], [4, 9], [6]]
    start = resolve(request(parent=head_of(*turns), history=[pack(turn) for turn in turns]), HELD)
    assert start.parent.ids.tolist() == [1, 2, 3, 4, 9, 6]
    assert start.reuse == 4
    assert resolve(request(parent=head_of(*turns), history=[pack(turn) for turn in turns]), None).reuse == 0


def test_history_that_does_not_lead_to_the_parent_is_refused():
    with pytest.raises(InvalidRequest) as refused:
        resolve(request(parent=head_of([1]), history=[pack([2])]), None)
    assert refused.value.members["field"] == "history"
    with pytest.raises(InvalidRequest) as refused:
        resolve(request(parent=head_of([1]), history=[pack([1]), b"abc"]), None)
    assert refused.value.members["field"] == "history[1]"


def test_a_long_history_remembers_its_latest_heads():
    history = EMPTY.extend([pack([1])] * (MARKS_KEPT + 5))
    assert len(history.have) == MARKS_KEPT
    assert history.head == head_of(*[[1]] * (MARKS_KEPT + 5))


@pytest.mark.parametrize(("left", "right", "size"), [([], [1], 0), ([1, 2], [1, 2, 3], 2), ([1, 2], [1, 3], 1)])
def test_common_prefix(left, right, size):
    assert common_prefix(np.array(left, np.int32), np.array(right, np.int32)) == size
