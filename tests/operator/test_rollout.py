"""Replacing one revision by another: what is given up on the way, and what never is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from berth_operator.model import (
    Action,
    Cordon,
    Drop,
    Fleet,
    FleetKey,
    Instance,
    Place,
    Ready,
    Register,
    Registration,
    Seen,
    Start,
    Stop,
    Uncordon,
)
from berth_operator.plan import plan
from berth_operator.policy import Policy

KEY = FleetKey("default", "tiny")
POLICY = Policy()
NOW = 1000.0
SURGE = Fleet(KEY, 2, "new", max_surge=1, max_unavailable=0)
IN_PLACE = Fleet(KEY, 2, "new", max_surge=0, max_unavailable=1)


def place(revision: str, ordinal: int) -> Place:
    return Place(KEY, ordinal, revision)


def pod(revision: str, ordinal: int, *, ready: bool = True) -> Instance:
    uid = f"{revision}{ordinal}"
    word = Ready(f"{uid}.boot", f"http://{uid}") if ready else None
    return Instance(place(revision, ordinal), uid, NOW, word)


def known(pod: Instance, *, running: int = 0, waiting: int = 0, cordoned: bool = False) -> Registration:
    assert pod.ready
    since = NOW if cordoned else None
    return Registration(KEY, pod.ready.id, pod.ready.url, cordoned, running, 0, waiting=waiting, cordoned_since=since)


def decide(fleet: Fleet, pods: list[Instance], registered: list[Registration] | None) -> list[Action]:
    seen = Seen(NOW, tuple(pods), None if registered is None else tuple(registered), {})
    return plan([fleet], seen, POLICY)


OLD = [pod("old", 0), pod("old", 1)]


def test_names_tell_the_revision() -> None:
    assert str(place("7f3a", 2)) == "tiny-7f3a-2"


def test_with_surge_a_new_one_comes_first() -> None:
    assert decide(SURGE, OLD, [known(each) for each in OLD]) == [Start(place("new", 0))]


def test_and_an_old_one_goes_only_when_it_serves() -> None:
    starting = [*OLD, pod("new", 0, ready=False)]
    assert decide(SURGE, starting, [known(each) for each in OLD]) == []
    serving = [*OLD, pod("new", 0)]
    assert decide(SURGE, serving, [known(each) for each in serving]) == [Cordon(place("old", 1), OLD[1].ready)]


def test_without_surge_an_old_one_goes_first() -> None:
    assert decide(IN_PLACE, OLD, [known(each) for each in OLD]) == [Cordon(place("old", 1), OLD[1].ready)]


def test_too_many_that_start_are_no_reason_to_take_one_that_serves() -> None:
    """As when fewer are wanted in the middle of a rollout."""
    starting = [pod("new", 0, ready=False), pod("new", 1, ready=False)]
    assert decide(SURGE, [*OLD, *starting], [known(each) for each in OLD]) == [Stop(place("new", 1))]


def test_the_next_one_waits_for_the_first() -> None:
    """One of two is out of service already: no second."""
    pods = [OLD[0], replace(OLD[1], stopping=True)]
    registered = [known(OLD[0]), known(OLD[1], cordoned=True)]
    assert decide(IN_PLACE, pods, registered) == [Start(place("new", 0))]
    assert decide(IN_PLACE, [*pods, pod("new", 0, ready=False)], registered) == []


def test_who_does_not_serve_goes_at_once() -> None:
    """An old pod that cannot be scheduled, or never gets ready, loses nothing by going."""
    pods = [OLD[0], pod("old", 1, ready=False)]
    assert decide(SURGE, pods, [known(OLD[0])]) == [Start(place("new", 0)), Stop(place("old", 1))]


def test_turns_that_wait_do_not_hold_a_rollout_up() -> None:
    registered = [known(OLD[0], waiting=3), known(OLD[1], waiting=3, cordoned=True)]
    assert decide(IN_PLACE, OLD, registered) == [Stop(place("old", 1))]


def test_running_turns_end_first() -> None:
    registered = [known(OLD[0]), known(OLD[1], running=1, cordoned=True)]
    assert decide(IN_PLACE, OLD, registered) == []


def test_the_fleets_own_deadline_counts() -> None:
    registered = [known(OLD[0]), known(OLD[1], running=1, cordoned=True)]
    assert decide(replace(IN_PLACE, drain_s=0.0), OLD, registered) == [Stop(place("old", 1))]


def test_nothing_rolls_while_no_gateway_answers() -> None:
    assert decide(SURGE, OLD, None) == []
    assert decide(SURGE, OLD[:1], None) == [Start(place("new", 0))]


def test_a_fleet_made_smaller_meanwhile_loses_the_old_first() -> None:
    pods = [*OLD, pod("new", 0)]
    actions = decide(replace(SURGE, replicas=1), pods, [known(each) for each in pods])
    assert actions == [Cordon(place("old", 0), OLD[0].ready), Cordon(place("old", 1), OLD[1].ready)]


def test_going_back_removes_the_one_that_never_came_up() -> None:
    pods = [*OLD, pod("new", 0, ready=False)]
    back = replace(SURGE, revision="old")
    assert decide(back, pods, [known(each) for each in OLD]) == [Stop(place("new", 0))]


@dataclass
class Cluster:
    """Carries out what the plan says, one action at a time, with a worker that is ready one round after its start."""

    fleet: Fleet
    pods: dict[Place, Instance] = field(default_factory=dict)
    registered: dict[str, Registration] = field(default_factory=dict)
    fewest: int = 1_000
    most: int = 0

    def round(self) -> list[Action]:
        actions = decide(self.fleet, list(self.pods.values()), list(self.registered.values()))
        for at, each in self.pods.items():
            if each.ready is None:
                self.pods[at] = pod(at.revision, at.ordinal)
        for action in actions:
            self.act(action)
            self.fewest = min(self.fewest, sum(not worker.cordoned for worker in self.registered.values()))
            self.most = max(self.most, len(self.pods))
        return actions

    def settle(self) -> None:
        for _ in range(100):
            settled = all(each.ready for each in self.pods.values())
            if not self.round() and settled:
                return
        raise AssertionError("it never ends")

    def act(self, action: Action) -> None:
        match action:
            case Start(at):
                self.pods[at] = pod(at.revision, at.ordinal, ready=False)
            case Stop(at):
                del self.pods[at]
            case Register(at, ready) | Uncordon(at, ready):
                self.registered[ready.id] = known(self.pods[at])
            case Cordon(at, ready):
                self.registered[ready.id] = known(self.pods[at], cordoned=True)
            case Drop(id_):
                del self.registered[id_]


@pytest.mark.parametrize("replicas", [1, 2, 5])
@pytest.mark.parametrize(("surge", "unavailable"), [(1, 0), (0, 1), (2, 2), (3, 0), (0, 5)])
def test_a_rollout_ends_and_keeps_within_its_bounds(replicas: int, surge: int, unavailable: int) -> None:
    cluster = Cluster(Fleet(KEY, replicas, "old"))
    cluster.settle()
    cluster.fleet = Fleet(KEY, replicas, "new", max_surge=surge, max_unavailable=unavailable)
    cluster.fewest, cluster.most = replicas, replicas
    cluster.settle()
    assert sorted(at.revision for at in cluster.pods) == ["new"] * replicas
    assert len(cluster.registered) == replicas
    assert cluster.fewest >= replicas - unavailable
    assert cluster.most <= replicas + surge
