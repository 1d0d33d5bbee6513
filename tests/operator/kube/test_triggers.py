"""Each change reaches the queue of whom it concerns, and no other."""

from __future__ import annotations

from typing import Any

import pytest

from berth_operator.kube.absences import Gone
from berth_operator.kube.queue import KeyedQueue
from berth_operator.kube.store import Key, Listing
from berth_operator.model import FleetKey
from kubekit.bodies import condition, fleet, node, pod, session
from kubekit.world import World, key


class Changes:
    """Tells the store of changes, and reads what was queued for each."""

    def __init__(self, world: World) -> None:
        self.world = world

    def __call__(self, kind: Any, body: Any, *, deleted: bool = False) -> tuple[set[Any], set[Any], set[Any]]:
        self.world.store.heard(kind, body, deleted=deleted)
        return tuple(set(_taken(queue)) for queue in self.world.operator.queues)  # type: ignore[return-value]


def _taken(queue: KeyedQueue[Any]) -> list[Any]:
    keys = list(queue._ready)
    queue._ready.clear()
    queue._waiting.clear()
    return keys


@pytest.fixture
def change(world: World) -> Changes:
    return Changes(world)


def test_a_pod_concerns_its_fleet(change: Changes) -> None:
    assert change("pod", pod()) == ({key("tiny")}, set(), set())
    assert change("pod", pod(version=2), deleted=True) == ({key("tiny")}, set(), set())


def test_a_pod_of_nobody_concerns_nobody(change: Changes) -> None:
    body = pod()
    body["metadata"]["labels"] = {}
    assert change("pod", body) == (set(), set(), set())


def test_a_session_concerns_itself(change: Changes) -> None:
    assert change("session", session()) == (set(), {key("alice")}, set())


def test_a_deleted_session_is_closed_at_once(change: Changes) -> None:
    change("session", session())
    gone = Gone(key("alice"), "session-1")
    assert change("session", session(version=2), deleted=True) == (set(), {key("alice")}, {gone})


def test_what_it_wanted_last_goes_along(change: Changes) -> None:
    change("session", session())
    _, _, closings = change("session", session(version=3, deletionPolicy="Retain"), deleted=True)
    assert closings == {Gone(key("alice"), "session-1", retain=True)}


def test_a_session_that_only_a_list_lacks_is_not_closed_yet(world: World, change: Changes) -> None:
    change("session", session())
    world.store.listed("session", Listing(50, []))
    world.store.listed("session", Listing(51, []))
    assert world.store.get("session", key("alice")) is None
    assert _taken(world.operator.queues.closings) == []


def test_a_deletion_that_comes_after_such_a_list_closes_it(world: World, change: Changes) -> None:
    change("session", session())
    world.store.listed("session", Listing(50, []))
    world.store.listed("session", Listing(51, []))
    _, _, closings = change("session", session(version=40), deleted=True)
    assert closings == {Gone(key("alice"), "session-1")}


def test_a_name_made_again_closes_the_old_uid(change: Changes) -> None:
    change("session", session())
    _, _, closings = change("session", session(version=2, uid="session-2"))
    assert closings == {Gone(key("alice"), "session-1")}


def test_a_fleet_that_comes_or_goes_concerns_its_sessions(change: Changes) -> None:
    change("session", session())
    change("session", session("bob", uid="session-2", fleet="other"))
    assert change("fleet", fleet()) == ({key("tiny")}, {key("alice")}, set())
    assert change("fleet", fleet(version=2), deleted=True) == ({key("tiny")}, {key("alice")}, set())


def test_a_status_of_a_fleet_does_not(change: Changes) -> None:
    """A thousand sessions are not to be looked at because a number in it has changed."""
    change("session", session())
    change("fleet", fleet())
    assert change("fleet", fleet(version=2, status={"replicas": 1})) == ({key("tiny")}, set(), set())


def test_a_node_that_falls_silent_or_comes_back_concerns_all_fleets(change: Changes) -> None:
    change("fleet", fleet())
    assert change("node", node()) == ({key("tiny")}, set(), set())
    assert change("node", node(version=2)) == (set(), set(), set())
    assert change("node", node(version=3, ready="Unknown")) == ({key("tiny")}, set(), set())
    assert change("node", node(version=4, ready="False")) == (set(), set(), set())
    heartbeat = node(version=5, ready="False")
    heartbeat["status"]["conditions"].append(condition("MemoryPressure", "True"))
    assert change("node", heartbeat) == (set(), set(), set())
    assert change("node", node(version=6), deleted=True) == ({key("tiny")}, set(), set())


def test_what_is_left_of_a_fleet_is_looked_at_too(world: World, change: Changes) -> None:
    """Pods and registered workers of a fleet that nobody wants any more."""
    change("fleet", fleet())
    change("pod", pod(fleet=FleetKey("team", "gone")))
    assert world.operator.triggers.fleets() == {key("tiny"), key("gone")}


def test_an_operator_of_one_namespace_leaves_what_is_elsewhere() -> None:
    world = World(namespaces=("mine",))
    world.store.heard("pod", pod(), deleted=False)
    world.store.heard("pod", pod(fleet=FleetKey("mine", "tiny")), deleted=False)
    assert world.operator.triggers.fleets() == {Key("mine", "tiny")}


def test_names_of_pods_outlive_them(world: World, change: Changes) -> None:
    change("pod", pod())
    change("pod", pod(version=2), deleted=True)
    names = world.operator.triggers.names
    assert names.of("pod-0.boot") == "tiny-0a1b2c3d-0"
    assert names.of("other.boot") == "other"


def test_only_the_newest_names_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from berth_operator.kube import names

    monkeypatch.setattr(names, "KEPT", 2)
    kept = names.PodNames()
    for uid in ("a", "b", "a", "c"):
        kept.saw(uid, f"pod {uid}")
    assert [kept.of(uid) for uid in ("a", "b", "c")] == ["pod a", "b", "pod c"]
