"""Two complete lists, far enough apart, must lack a resource."""

from __future__ import annotations

from berth_operator.kube.absences import Absences, Gone
from kubekit.world import key

ALICE, BOB = Gone(key("alice"), "session-1"), Gone(key("bob"), "session-2")


def test_one_list_is_not_enough() -> None:
    absences = Absences(60.0)
    assert absences.due([ALICE, BOB], {"session-2"}, 100.0) == []
    assert absences.due([ALICE, BOB], {"session-2"}, 159.9) == []


def test_two_so_far_apart_are() -> None:
    absences = Absences(60.0)
    absences.due([ALICE, BOB], {"session-2"}, 100.0)
    assert absences.due([ALICE, BOB], {"session-2"}, 160.0) == [ALICE]


def test_it_is_told_until_it_is_closed() -> None:
    absences = Absences(60.0)
    for now in (100.0, 160.0, 190.0):
        due = absences.due([ALICE], set(), now)
    assert due == [ALICE]
    assert absences.due([], set(), 220.0) == []
    assert absences._since == {}


def test_one_that_was_back_in_between_starts_anew() -> None:
    absences = Absences(60.0)
    absences.due([ALICE], set(), 100.0)
    absences.due([ALICE], {"session-1"}, 130.0)
    assert absences.due([ALICE], set(), 160.0) == []
    assert absences.due([ALICE], set(), 220.0) == [ALICE]


def test_the_name_alone_is_not_the_resource() -> None:
    absences = Absences(60.0)
    absences.due([ALICE], {"another uid"}, 100.0)
    assert absences.due([ALICE], {"another uid"}, 160.0) == [ALICE]
