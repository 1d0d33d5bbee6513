"""Two sources, one picture: whoever knows the newer version wins."""

from __future__ import annotations

from typing import Any

import pytest

from berth_operator.kube.store import Key, Listing, Store
from berth_operator.model import FleetKey
from kubekit.bodies import FLEET, node, pod, session
from kubekit.clock import Clock

ALICE = Key("team", "alice")


class Told:
    """A store, and what it told of each change: the uids before and after."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, str | None, str | None]] = []
        self.deleted: list[str] = []
        self.clock = Clock()
        self.store = Store(self._changed, self._deleted, self.clock)

    def _changed(self, kind: str, old: Any, new: Any) -> None:
        self.changes.append((kind, old and old["metadata"]["uid"], new and new["metadata"]["uid"]))

    def _deleted(self, kind: str, body: Any) -> None:
        self.deleted.append(body["metadata"]["uid"])

    def heard(self, version: int, *, deleted: bool = False, **facts: Any) -> None:
        self.store.heard("session", session(version=version, **facts), deleted=deleted)

    def listed(self, version: int, *bodies: Any, namespace: str | None = None) -> None:
        self.store.listed("session", Listing(version, list(bodies)), namespace)

    def version(self) -> int | None:
        body = self.store.get("session", ALICE)
        return body and int(body["metadata"]["resourceVersion"])


@pytest.fixture
def told() -> Told:
    return Told()


def test_the_watch_tells_of_each_change(told: Told) -> None:
    told.heard(5)
    told.heard(6)
    told.heard(7, deleted=True)
    assert told.changes == [
        ("session", None, "session-1"),
        ("session", "session-1", "session-1"),
        ("session", "session-1", None),
    ]
    assert told.version() is None
    assert told.deleted == ["session-1"]


def test_a_version_that_is_known_is_no_change(told: Told) -> None:
    told.heard(5)
    told.heard(5)
    told.listed(9, session(version=5))
    assert len(told.changes) == 1


def test_a_list_that_was_long_under_way_takes_nothing_back(told: Told) -> None:
    told.heard(12)
    told.listed(10, session(version=8))
    assert told.version() == 12
    told.listed(10)
    assert told.version() == 12


def test_an_older_event_takes_nothing_back(told: Told) -> None:
    told.listed(10, session(version=8))
    told.heard(7)
    assert told.version() == 8


def test_our_own_write_is_ahead_of_the_watch(told: Told) -> None:
    told.heard(5)
    told.store.wrote("session", session(version=6))
    told.heard(5)
    assert told.version() == 6


def test_two_lists_without_an_object_remove_it(told: Told) -> None:
    """One may have come back short. And who closes what is gone for good must know more than lists can say."""
    told.heard(5)
    told.listed(10)
    assert told.version() == 5
    told.listed(11)
    assert told.version() is None
    assert told.changes[-1] == ("session", "session-1", None)
    assert told.deleted == []


def test_two_lists_in_a_row(told: Told) -> None:
    told.heard(5)
    told.listed(10)
    told.listed(11, session(version=5))
    told.listed(12)
    assert told.version() == 5


def test_a_list_of_another_namespace_is_not_the_second_one(told: Told) -> None:
    told.heard(5)
    told.listed(10, namespace="team")
    told.listed(11, namespace="other")
    assert told.version() == 5
    told.listed(12, namespace="team")
    assert told.version() is None


def test_what_was_deleted_does_not_come_back_by_an_older_word(told: Told) -> None:
    told.heard(5)
    told.heard(8, deleted=True)
    told.listed(7, session(version=5))
    told.store.wrote("session", session(version=6))
    assert told.version() is None


def test_nor_by_a_watch_that_lags_behind_the_list(told: Told) -> None:
    told.heard(5)
    told.listed(10)
    told.listed(11)
    told.heard(6)
    assert told.version() is None


def test_lists_that_came_back_short_are_mended_by_the_next(told: Told) -> None:
    told.heard(5)
    told.listed(10)
    told.listed(10)
    assert told.version() is None
    told.listed(10, session(version=5))
    told.clock.advance(40)
    assert told.version() == 5
    assert told.store.late_s("session") == 0.0


def test_a_name_made_again_is_another_object(told: Told) -> None:
    """The events of two uids come in any order."""
    told.heard(5)
    told.heard(9, uid="session-2")
    told.heard(8, deleted=True)
    assert told.version() == 9
    assert told.changes == [("session", None, "session-1"), ("session", "session-1", "session-2")]
    assert told.deleted == ["session-1"]


def test_a_list_of_one_namespace_says_nothing_of_others(told: Told) -> None:
    told.heard(5)
    told.listed(10, namespace="other")
    assert told.version() == 5
    assert [key.namespace for key in told.store.keys("session")] == ["team"]
    assert list(told.store.all("session", "other")) == []


def test_the_dead_are_forgotten(told: Told) -> None:
    for n in range(3):
        told.heard(10 + 2 * n, name=f"s{n}", uid=f"u{n}")
        told.heard(11 + 2 * n, name=f"s{n}", uid=f"u{n}", deleted=True)
    told.listed(50)
    told.listed(51)
    assert told.store._gone["session"] == {}


def test_what_nobody_reads_is_not_kept(told: Told) -> None:
    body = session(version=5)
    body["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    told.store.heard("session", body, deleted=False)
    assert told.store.get("session", ALICE) == session(version=5)


def test_of_nodes_only_how_they_are(told: Told) -> None:
    body = node()
    body["status"] |= {"images": [{"names": ["a"]}] * 50, "capacity": {"cpu": "96"}}
    told.store.heard("node", body | {"spec": {"podCIDR": "10.0.0.0/24"}}, deleted=False)
    assert told.store.get("node", Key("", "node-1")) == node()


def test_each_fleet_has_its_pods(told: Told) -> None:
    """What has other labels, or none, is not its own; nor is what had its labels once, or is gone."""
    store, other = told.store, FleetKey("team", "other")
    tiny, alien, moved = pod(0), pod(1, fleet=other), pod(2)
    stranger = pod(3)
    stranger["metadata"]["labels"] = {}
    for body in (tiny, alien, moved, stranger):
        store.heard("pod", body, deleted=False)
    assert store.pods(FLEET) in ([tiny, moved], [moved, tiny])
    assert store.pods(other) == [alien]

    relabelled = pod(2, version=2)
    relabelled["metadata"]["labels"] = {}
    store.heard("pod", relabelled, deleted=False)
    store.heard("pod", pod(1, fleet=other, version=2), deleted=True)
    assert store.pods(FLEET) == [tiny]
    assert store.fleets_with_pods() == [FLEET]


class TestLateness:
    """A watch whose connection looks alive and which tells nothing is found out by lists."""

    def test_a_change_that_only_a_list_brought_is_owed(self, told: Told) -> None:
        told.heard(5)
        told.listed(10, session(version=8))
        told.clock.advance(40)
        assert told.store.late_s("session") == 40.0
        assert told.store.late_s("pod") == 0.0

    def test_and_paid_when_the_watch_tells_it_or_something_newer(self, told: Told) -> None:
        told.listed(10, session(version=8))
        told.clock.advance(40)
        told.heard(7)
        assert told.store.late_s("session") == 40.0
        told.heard(9)
        assert told.store.late_s("session") == 0.0

    def test_later_lists_do_not_begin_it_anew(self, told: Told) -> None:
        told.listed(10, session(version=8))
        told.clock.advance(40)
        told.listed(20, session(version=18))
        assert told.store.late_s("session") == 40.0

    def test_what_we_wrote_or_heard_is_not_owed(self, told: Told) -> None:
        told.heard(5)
        told.store.wrote("session", session(version=8))
        told.listed(10, session(version=8))
        told.clock.advance(40)
        assert told.store.late_s("session") == 0.0

    def test_nobody_owes_what_is_gone(self, told: Told) -> None:
        told.listed(10, session(version=8))
        told.clock.advance(40)
        told.listed(20)
        assert told.store.late_s("session") == 0.0

    def test_while_no_list_can_be_had_it_cannot_tell_either(self, told: Told) -> None:
        told.listed(10, session(version=8))
        told.clock.advance(40)
        told.store.excuse()
        assert told.store.late_s("session") == 0.0
        told.clock.advance(30)
        assert told.store.late_s("session") == 30.0
