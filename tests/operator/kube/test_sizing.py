"""How many workers a fleet is to have: as its spec says, or as its load does."""

from __future__ import annotations

import pytest

from berth_api.crd import FleetSpec
from berth_operator.kube.sizing import Sizing
from berth_operator.model import Registration
from kubekit.bodies import FLEET, fleet
from kubekit.clock import Clock
from kubekit.gateways import FakeAdmin

NOW = 1000.0
AUTO = {"min": 1, "max": 5, "bufferSlots": 1, "scaleDownStabilization": "60s"}
TO_ZERO = {"min": 0, "max": 5}


def spec(**members: object) -> FleetSpec:
    return FleetSpec.model_validate(fleet(**members)["spec"])


def worker(*, running: int = 0, resident: int = 0, waiting: int = 0, name: str = "w") -> Registration:
    return Registration(FLEET, f"{name}.boot", "http://w", False, running, resident, waiting=waiting)


@pytest.fixture
def admin() -> FakeAdmin:
    return FakeAdmin(Clock())


@pytest.fixture
def sizing(admin: FakeAdmin) -> Sizing:
    return Sizing(admin)  # type: ignore[arg-type]


@pytest.mark.parametrize(("members", "wanted"), [({}, 1), ({"replicas": 0}, 0), ({"replicas": 7}, 7)])
async def test_as_the_spec_says(sizing: Sizing, members: dict[str, int], wanted: int) -> None:
    assert await sizing.desired(FLEET, spec(**members), None, 3, NOW) == wanted


@pytest.mark.parametrize(
    ("workers", "wanted"),
    [
        ([worker()], 1),
        ([worker(running=2, resident=1)], 1),
        ([worker(running=2, resident=2)], 2),
        ([worker(running=4, waiting=3)], 2),
        ([worker(running=4), worker(resident=4, name="v")], 3),
        ([worker(running=4, waiting=90)], 5),
    ],
    ids=["idle", "room left", "full but for the buffer", "turns wait", "two", "more than it may have"],
)
async def test_as_many_as_its_sessions_hold_slots(sizing: Sizing, workers: list[Registration], wanted: int) -> None:
    got = await sizing.desired(FLEET, spec(autoscaling=AUTO), tuple(workers), 1, NOW)
    assert got == wanted


async def test_it_shrinks_when_fewer_were_enough_for_long(sizing: Sizing) -> None:
    wanted = spec(autoscaling=AUTO)
    assert await sizing.desired(FLEET, wanted, (worker(running=4), worker(running=4, name="v")), 3, NOW) == 3
    idle = (worker(),)
    assert await sizing.desired(FLEET, wanted, idle, 3, NOW + 59) == 3
    assert await sizing.desired(FLEET, wanted, idle, 3, NOW + 61) == 1


async def test_who_has_just_come_shrinks_nothing_before_that_time(sizing: Sizing) -> None:
    assert await sizing.desired(FLEET, spec(autoscaling=AUTO), (worker(),), 4, NOW) == 4


async def test_while_nobody_sees_the_load_it_stays(sizing: Sizing) -> None:
    wanted = spec(autoscaling=AUTO)
    assert await sizing.desired(FLEET, wanted, None, 3, NOW) == 3
    assert await sizing.desired(FLEET, wanted, None, 0, NOW) == 1
    assert await sizing.desired(FLEET, wanted, None, 9, NOW) == 5


class TestToZero:
    async def test_a_new_fleet_starts_one_so_that_its_model_is_known(self, sizing: Sizing) -> None:
        assert await sizing.desired(FLEET, spec(autoscaling=TO_ZERO), (), 0, NOW) == 1

    async def test_a_known_one_rests(self, sizing: Sizing, admin: FakeAdmin) -> None:
        admin.register("w.boot", "http://w")
        admin.workers_known.clear()
        assert await sizing.desired(FLEET, spec(autoscaling=TO_ZERO), (), 0, NOW) == 0

    async def test_until_a_turn_waits(self, sizing: Sizing, admin: FakeAdmin) -> None:
        admin.register("w.boot", "http://w")
        admin.workers_known.clear()
        admin.pending = 1
        assert await sizing.desired(FLEET, spec(autoscaling=TO_ZERO), (), 0, NOW) == 1

    async def test_where_nobody_can_say_it_stays(self, sizing: Sizing, admin: FakeAdmin) -> None:
        admin.down = True
        assert await sizing.desired(FLEET, spec(autoscaling=TO_ZERO), (), 2, NOW) == 2


async def test_a_fleet_that_is_gone_is_forgotten(sizing: Sizing) -> None:
    await sizing.desired(FLEET, spec(autoscaling=AUTO), (worker(),), 1, NOW)
    sizing.forget(FLEET)
    sizing.forget(FLEET)
    assert sizing._stabilizers == {}


async def test_so_is_what_a_fleet_wanted_that_follows_its_load_no_more(sizing: Sizing) -> None:
    await sizing.desired(FLEET, spec(autoscaling=AUTO), (worker(),), 1, NOW)
    await sizing.desired(FLEET, spec(replicas=2), (worker(),), 1, NOW)
    assert sizing._stabilizers == {}
