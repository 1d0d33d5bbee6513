"""The workers as the gateways know them: single looks become durations."""

from __future__ import annotations

from typing import Any

import pytest

from berth_api.admin import WorkerView
from berth_operator.errors import AdminRefused, AdminUnavailable
from berth_operator.model import FleetKey, Registration
from berth_operator.roster import Roster

FLEET = FleetKey("team", "tiny")


def view(id_: str = "w.boot", **facts: Any) -> WorkerView:
    usual = {"slots": 4, "fingerprint": "f", "cordoned": False, "suspect": False, "running": [], "idle": []}
    return WorkerView(id=id_, namespace="team", **({"fleet": "tiny", "url": f"http://{id_}"} | usual | facts))


class Gateway:
    """Answers with what a test wants; and the time."""

    def __init__(self) -> None:
        self.now = 100.0
        self.views = [view()]
        self.error: Exception | None = None
        self.roster = Roster(self, lambda: self.now)  # type: ignore[arg-type]

    async def workers(self) -> list[WorkerView]:
        if self.error is not None:
            raise self.error
        return self.views

    async def look(self, *views: WorkerView, at: float) -> tuple[Registration, ...] | None:
        self.now = at
        self.views = list(views) or self.views
        return await self.roster.look()


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


async def test_a_worker_is_told_in_numbers(gateway: Gateway) -> None:
    busy = view(running=["a", "b"], idle=["c"], waiting=3, cordoned=True)
    assert await gateway.look(busy, at=100.0) == (
        Registration(FLEET, "w.boot", "http://w.boot", True, 2, 1, waiting=3, idle_since=None, cordoned_since=100.0),
    )


async def test_since_when_it_is_idle_is_remembered(gateway: Gateway) -> None:
    for at, running, since in ((100.0, [], 100.0), (110.0, [], 100.0), (120.0, ["a"], None), (130.0, [], 130.0)):
        (worker,) = await gateway.look(view(running=running), at=at) or ()
        assert worker.idle_since == since


async def test_and_since_when_it_is_cordoned(gateway: Gateway) -> None:
    for at, cordoned, since in ((100.0, True, 100.0), (110.0, True, 100.0), (120.0, False, None), (130.0, True, 130.0)):
        (worker,) = await gateway.look(view(cordoned=cordoned), at=at) or ()
        assert worker.cordoned_since == since


async def test_one_that_went_and_came_back_begins_anew(gateway: Gateway) -> None:
    await gateway.look(view("v.boot"), view(), at=100.0)
    await gateway.look(view("v.boot"), at=110.0)
    workers = await gateway.look(view("v.boot"), view(), at=120.0) or ()
    assert [worker.idle_since for worker in workers] == [100.0, 120.0]


async def test_each_fleet_has_its_own(gateway: Gateway) -> None:
    await gateway.look(view(), view("v.boot", fleet="other"), at=100.0)
    assert [worker.id for worker in gateway.roster.of(FLEET) or ()] == ["w.boot"]
    assert gateway.roster.of(FleetKey("team", "none")) == ()


@pytest.mark.parametrize("error", [AdminUnavailable("away"), AdminRefused("no", type_="", status=400)])
async def test_while_nobody_answers_nothing_is_known_of_anybody(gateway: Gateway, error: Exception) -> None:
    assert gateway.roster.of(FLEET) is None
    await gateway.look(at=100.0)
    gateway.error = error
    assert await gateway.look(at=110.0) is None
    assert gateway.roster.of(FLEET) is None


async def test_a_silence_of_the_gateways_is_no_break(gateway: Gateway) -> None:
    """Or every drain would begin anew when they come back."""
    await gateway.look(view(cordoned=True), at=100.0)
    gateway.error = AdminUnavailable("away")
    await gateway.look(at=110.0)
    gateway.error = None
    (worker,) = await gateway.look(at=120.0) or ()
    assert (worker.idle_since, worker.cordoned_since) == (100.0, 100.0)
