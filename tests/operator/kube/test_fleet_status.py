"""What a fleet's status says, one situation at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from berth_api.crd import Condition, FleetStatus
from berth_operator.kube import fleet_status
from berth_operator.kube.conditions import timestamp
from berth_operator.kube.fleet_status import FleetSeen
from berth_operator.kube.instances import Trouble
from berth_operator.model import Instance, Place, Ready, Registration
from kubekit.bodies import FLEET

NOW = 1_790_000_000.0
TROUBLE = Trouble("ImagePull", "ErrImagePull: no such host")


def worker(ordinal: int, revision: str = "new", **how: Any) -> Instance:
    uid = f"{revision}{ordinal}"
    return replace(
        Instance(Place(FLEET, ordinal, revision), uid, NOW, Ready(f"{uid}.boot", f"http://{uid}")),
        **how,
    )


def known(instance: Instance, *, cordoned: bool = False) -> Registration:
    assert instance.ready
    return Registration(FLEET, instance.ready.id, instance.ready.url, cordoned, 0, 0)


def seen(*instances: Instance, desired: int = 2, **how: Any) -> FleetSeen:
    registered = tuple(known(each) for each in instances if each.ready)
    base = FleetSeen(FLEET, 7, "new", desired, instances, registered, slots=4, troubles=())
    return replace(base, **how)


def judge(what: FleetSeen, before: FleetStatus | None = None) -> FleetStatus:
    return fleet_status.judge(what, before, NOW)


def facts(status: FleetStatus) -> dict[str, tuple[str, str, str]]:
    return {each.type: (each.status, each.reason, each.message) for each in status.conditions}


def test_all_is_well() -> None:
    status = judge(seen(worker(0), worker(1)))
    assert status == FleetStatus(
        observed_generation=7,
        phase="Ready",
        revision="new",
        replicas=2,
        ready_replicas=2,
        updated_replicas=2,
        desired_replicas=2,
        slots=8,
        selector="app.kubernetes.io/name=berth-worker,berth.dev/fleet=tiny",
        conditions=[
            Condition(
                type="Ready",
                status="True",
                reason="AllReady",
                message="2 of 2 workers serve",
                observed_generation=7,
                last_transition_time=timestamp(NOW),
            )
        ],
    )


def test_workers_are_on_their_way() -> None:
    status = judge(seen(worker(0), worker(1, ready=None)))
    assert facts(status) == {
        "Ready": ("False", "Progressing", "1 of 2 workers serve"),
        "Reconciling": ("True", "Progressing", "2 of 2 workers are of the newest revision"),
    }
    assert (status.phase, status.ready_replicas, status.slots) == ("Progressing", 1, 4)


def test_nothing_is_there_yet() -> None:
    status = judge(seen())
    assert (status.phase, status.replicas, status.ready_replicas) == ("Pending", 0, 0)


def test_something_is_in_the_way() -> None:
    status = judge(seen(worker(0, ready=None), troubles=[TROUBLE]))
    assert facts(status) == {
        "Ready": ("False", "ImagePull", "0 of 2 workers serve; ErrImagePull: no such host"),
        "Reconciling": ("True", "Progressing", "1 of 1 workers are of the newest revision"),
        "Stalled": ("True", "ImagePull", "ErrImagePull: no such host"),
    }
    assert status.phase == "Stalled"


def test_while_some_serve_it_is_degraded() -> None:
    status = judge(seen(worker(0), worker(1, ready=None), troubles=[TROUBLE]))
    assert status.phase == "Degraded"


def test_a_rollout_that_is_stuck_leaves_it_ready() -> None:
    """The old ones serve."""
    status = judge(seen(worker(0, "old"), worker(1, "old"), worker(0, ready=None), troubles=[TROUBLE]))
    assert facts(status)["Ready"] == ("True", "AllReady", "2 of 2 workers serve")
    assert facts(status)["Reconciling"][2] == "1 of 3 workers are of the newest revision"
    assert facts(status)["Stalled"][1] == "ImagePull"
    assert (status.replicas, status.updated_replicas) == (3, 1)


def test_a_trouble_that_does_not_matter_is_not_told() -> None:
    assert facts(judge(seen(worker(0), worker(1), troubles=[TROUBLE]))) == {
        "Ready": ("True", "AllReady", "2 of 2 workers serve")
    }


def test_none_are_wanted() -> None:
    status = judge(seen(desired=0))
    assert facts(status) == {"Ready": ("True", "ScaledToZero", "no workers are wanted")}
    assert status.phase == "Ready"


def test_those_that_are_not_wanted_are_on_their_way_out() -> None:
    status = judge(seen(worker(0), desired=0))
    assert facts(status)["Reconciling"][0] == "True"
    assert status.phase == "Progressing"


class TestWhoServes:
    @pytest.mark.parametrize(
        "how", [{"ready": None}, {"stopping": True}, {"unhealthy_since": NOW - 1}], ids=["starting", "stopping", "sick"]
    )
    def test_not_every_pod(self, how: dict[str, Any]) -> None:
        assert fleet_status.serving(seen(worker(0, **how))) == []

    def test_nobody_that_the_gateways_do_not_know(self) -> None:
        assert fleet_status.serving(seen(worker(0), registered=())) == []

    def test_nor_whom_they_have_cordoned(self) -> None:
        instance = worker(0)
        assert fleet_status.serving(seen(instance, registered=(known(instance, cordoned=True),))) == []

    def test_stopping_pods_are_not_counted(self) -> None:
        assert judge(seen(worker(0), worker(1, stopping=True))).replicas == 1


class TestBlind:
    """No gateway answers: nobody can say that it is otherwise than before."""

    BEFORE = FleetStatus(ready_replicas=2, slots=8)

    def test_who_served_serves(self) -> None:
        status = judge(seen(worker(0), worker(1), registered=None), self.BEFORE)
        assert (status.ready_replicas, status.slots) == (2, 8)
        assert facts(status) == {
            "Ready": ("True", "AllReady", "2 of 2 workers serve"),
            "Reconciling": ("True", "GatewayUnavailable", "no gateway answers: only the dead are replaced"),
        }

    def test_of_a_new_fleet_nothing_is_known(self) -> None:
        status = judge(seen(worker(0, ready=None), registered=None))
        assert (status.ready_replicas, status.phase) == (0, "Pending")


class TestInvalid:
    def test_what_was_known_stays(self) -> None:
        before = judge(seen(worker(0), worker(1)))
        status = fleet_status.invalid(8, "spec.slots: not a number", before, NOW + 60)
        assert (status.ready_replicas, status.phase, status.observed_generation) == (2, "Stalled", 8)
        assert facts(status) == {
            "Ready": ("False", "InvalidSpec", "spec.slots: not a number"),
            "Stalled": ("True", "InvalidSpec", "spec.slots: not a number"),
        }

    def test_even_where_that_was_nothing(self) -> None:
        assert fleet_status.invalid(1, "no", None, NOW).phase == "Stalled"


class TestWord:
    """What its sessions hear."""

    def test_how_many_would_take_a_turn(self) -> None:
        assert fleet_status.word(seen(worker(0), worker(1, ready=None))).usable == 1

    def test_why_none_would(self) -> None:
        word = fleet_status.word(seen(troubles=[TROUBLE]))
        assert (word.usable, word.reason, word.message) == (0, "ImagePull", "ErrImagePull: no such host")

    def test_that_it_rests(self) -> None:
        word = fleet_status.word(seen(desired=0))
        assert (word.reason, word.message) == ("NoCapacity", "the fleet rests at zero workers: a turn wakes it")

    def test_that_they_are_on_their_way(self) -> None:
        assert fleet_status.word(seen(worker(0, ready=None))).message == "no worker of the fleet serves"
