"""What is done to pods and registrations: each act may be repeated, and one that fails keeps no other back."""

from __future__ import annotations

from typing import Any

import pytest

from berth_api.crd import InferenceFleet
from berth_operator.errors import AdminRefused, ClusterRefused, ClusterUnavailable
from berth_operator.kube.hands import Hands
from berth_operator.kube.instances import Trouble
from berth_operator.kube.pods import DRAINED_S
from berth_operator.kube.store import Body, Store
from berth_operator.model import (
    Cordon,
    Drop,
    Fleet,
    FleetKey,
    Instance,
    Kill,
    Place,
    Ready,
    Register,
    Restarts,
    Start,
    Stop,
    Uncordon,
)
from kubekit.bodies import FLEET, REVISION, deleted, ended, fleet, running
from kubekit.clock import Clock
from kubekit.cluster import FakeCluster
from kubekit.gateways import FakeAdmin
from kubekit.world import PODS, World

PLACE = Place(FLEET, 0, REVISION)
READY = Ready("pod-0.boot", "http://10.0.0.1:8000")
RESOURCE = InferenceFleet.model_validate(fleet())
NO = ClusterRefused("exceeded quota", status=403)


class Work:
    """Hands, one pod, and who hears what they do."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.cluster = FakeCluster(self.clock)
        self.admin = FakeAdmin(self.clock)
        self.store = Store(lambda *_: None, lambda *_: None, self.clock)
        settings = World().settings
        assert settings.pods == PODS
        self.hands = Hands(settings, self.cluster, self.store, self.admin, self.clock)  # type: ignore[arg-type]
        self.pod = self.cluster.put("pod", running())

    async def do(self, *actions: Any, resource: InferenceFleet | None = RESOURCE) -> None:
        await self.hands.carry_out(actions, resource, {PLACE: self.pod})


@pytest.fixture
def work() -> Work:
    return Work()


def place(ordinal: int, revision: str = REVISION) -> Place:
    return Place(FLEET, ordinal, revision)


async def test_a_pod_that_was_made_is_known_before_the_watch_tells(work: Work) -> None:
    await work.do(Start(place(1)))
    assert [body["metadata"]["name"] for body in work.store.all("pod")] == [f"tiny-{REVISION}-1"]


async def test_nothing_is_made_of_a_fleet_that_nobody_wants(work: Work) -> None:
    await work.do(Start(place(1)), resource=None)
    assert work.cluster.made("create_pod") == []


@pytest.mark.parametrize(("order", "grace_s"), [(Stop(PLACE), DRAINED_S), (Kill(PLACE), None)], ids=["stop", "kill"])
async def test_a_pod_that_was_told_to_end_is_remembered(work: Work, order: Any, grace_s: int | None) -> None:
    """One whose turns were waited for has little left to do."""
    await work.do(order)
    assert work.cluster.made("delete_pod") == [[f"tiny-{REVISION}-0", grace_s]]
    assert work.hands.ending == {"pod-0"}


async def test_one_that_could_not_be_told_is_not(work: Work) -> None:
    work.cluster.breaks("delete_pod")
    with pytest.raises(ClusterUnavailable):
        await work.do(Stop(PLACE))
    assert work.hands.ending == set()


async def test_gateways_are_told_whatever_became_of_the_pods(work: Work) -> None:
    work.cluster.breaks("delete_pod", NO)
    with pytest.raises(ClusterRefused):
        await work.do(Stop(PLACE), Drop("gone.boot"), Register(place(1), READY))
    assert [call[0] for call in work.admin.calls] == ["drop_worker", "put_worker"]


async def test_one_word_to_the_gateways_that_fails_keeps_no_other_back(work: Work) -> None:
    work.admin.refusals["put_worker"] = AdminRefused("another model", type_="conflict", status=409)
    await work.do(Register(place(1), READY), Drop("gone.boot"))
    assert [call[0] for call in work.admin.calls] == ["put_worker", "drop_worker"]


async def test_a_cordon_and_its_end(work: Work) -> None:
    await work.do(Cordon(PLACE, READY))
    assert work.admin.workers_known["pod-0.boot"].cordoned
    await work.do(Uncordon(PLACE, READY))
    assert not work.admin.workers_known["pod-0.boot"].cordoned


async def test_starts_stop_at_the_first_refusal(work: Work) -> None:
    """The first is refused, and the other six are not tried."""
    work.cluster.breaks("create_pod", NO, times=7)
    await work.do(*(Start(place(n)) for n in range(1, 8)))
    assert len(work.cluster.made("create_pod")) == 1
    assert work.hands.refused == {place(n): Trouble("PodRefused", "exceeded quota") for n in range(1, 8)}
    assert {each.failures for each in work.hands.restarts.values()} == {1}


async def test_a_place_that_is_taken_once_may_be_ours(work: Work) -> None:
    await work.do(Start(PLACE))
    assert work.hands.refused == {}
    await work.do(Start(PLACE))
    assert work.hands.refused[PLACE].message == f"there is a pod tiny-{REVISION}-0 that is not of this fleet"


@pytest.mark.parametrize(
    ("pod", "failures"), [(ended(), 1), (deleted(ended(), "2026-09-21T14:13:20Z"), 0)], ids=["by itself", "by order"]
)
async def test_an_end_that_nobody_ordered_is_a_failure(work: Work, pod: Body, failures: int) -> None:
    work.pod = work.cluster.put("pod", pod)
    await work.hands.bury(PLACE, work.pod)
    assert work.cluster.get("pod", f"tiny-{REVISION}-0") is None
    assert work.hands.restarts.get(PLACE, Restarts()).failures == failures


class TestSettling:
    """What hindered somebody is forgotten when it hinders nobody any more."""

    OTHER = Place(FleetKey("team", "other"), 0, "x")

    @pytest.fixture
    def hindered(self, work: Work) -> Hands:
        for where in (place(0), place(1), place(0, "old"), self.OTHER):
            work.hands.restarts[where] = Restarts(3, 1.0)
            work.hands.refused[where] = Trouble("PodRefused", "no")
        return work.hands

    def test_another_revision_is_another_chance(self, hindered: Hands) -> None:
        hindered.settle(Fleet(FLEET, 2, REVISION), ())
        assert set(hindered.restarts) == set(hindered.refused) == {place(0), place(1), self.OTHER}

    def test_whoever_is_not_wanted_is_not_missed(self, hindered: Hands) -> None:
        hindered.settle(Fleet(FLEET, 1, REVISION), [Instance(place(0), "pod-0", 1.0)])
        assert set(hindered.refused) == {self.OTHER}
        assert set(hindered.restarts) == {place(0), place(1), self.OTHER}, "who fails again and again still has pauses"

    def test_whoever_gets_ready_has_a_clean_slate(self, hindered: Hands) -> None:
        hindered.settle(Fleet(FLEET, 2, REVISION), [Instance(place(0), "pod-0", 1.0, READY)])
        assert set(hindered.restarts) == {place(1), self.OTHER}

    def test_a_fleet_that_is_gone_leaves_nothing(self, hindered: Hands) -> None:
        hindered.settle(Fleet(FLEET, 0), ())
        assert set(hindered.restarts) == set(hindered.refused) == {self.OTHER}
