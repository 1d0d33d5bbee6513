"""Fleets in numbers, as a scrape finds them."""

from __future__ import annotations

import pytest
from prometheus_client import generate_latest

from berth_operator.errors import AdminRefused
from kubekit.bodies import fleet
from kubekit.world import World, key


def numbers(world: World, name: str) -> dict[str, float]:
    """Return a gauge of fleet team/tiny by state."""
    found = {}
    for line in generate_latest(world.operator.metrics.registry).decode().splitlines():
        start = f'{name}{{fleet="tiny",namespace="team",state="'
        if line.startswith(start):
            state, _, value = line.removeprefix(start).partition('"} ')
            found[state] = float(value)
    return found


@pytest.fixture
async def busy(world: World) -> World:
    """Three workers, one of them cordoned, one that is not registered yet; sessions that run, hold slots and wait."""
    await world.serve(replicas=2)
    first, second = world.admin.workers_known
    world.admin.pending = 3
    world.admin.register(first, "http://10.0.0.1:8000", running=["a"], idle=["b", "c"])
    world.admin.register(second, "http://10.0.0.2:8000", cordoned=True)
    world.cluster.put("fleet", fleet(replicas=3))
    world.cluster.tell(world.store)
    await world.fleets.look(key("tiny"))
    await world.operator.upkeep.ask()
    return world


async def test_what_is_there_is_shown(busy: World) -> None:
    await busy.operator._gauges.read()
    assert numbers(busy, "berth_operator_fleet_workers") == {"ready": 1, "cordoned": 1, "starting": 1}
    assert numbers(busy, "berth_operator_fleet_slots") == {"active": 1, "idle_held": 2, "free": 5}
    assert numbers(busy, "berth_operator_fleet_sessions") == {
        "running": 1,
        "idle_held": 2,
        "hibernated": 0,
        "pending": 3,
    }


async def test_a_fleet_that_is_gone_has_no_numbers(busy: World) -> None:
    await busy.operator._gauges.read()
    busy.cluster.remove("fleet", "tiny")
    busy.cluster.tell(busy.store)
    await busy.operator._gauges.read()
    assert numbers(busy, "berth_operator_fleet_workers") == {}


async def test_one_that_the_gateways_do_not_know_has_none_yet(world: World) -> None:
    world.cluster.put("fleet", fleet())
    world.cluster.tell(world.store)
    world.admin.refusals["fleet"] = AdminRefused("no", type_="no_such_fleet", status=404)
    await world.operator._gauges.read()
    assert numbers(world, "berth_operator_fleet_slots") == {}


async def test_gateways_that_do_not_answer_are_asked_once(busy: World) -> None:
    """Each question would take its time to fail."""
    for name in ("b", "c", "d"):
        busy.cluster.put("fleet", fleet(name, uid=f"fleet-{name}"))
    busy.cluster.tell(busy.store)
    await busy.operator._gauges.read()
    busy.admin.down = True
    busy.admin.calls.clear()
    await busy.operator._gauges.read()
    assert len(busy.admin.asked("fleet")) == 1
    assert numbers(busy, "berth_operator_fleet_slots") == {}
