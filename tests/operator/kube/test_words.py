"""Workers are asked for their word through a gateway: once a start, and never to the harm of what was ordered."""

from __future__ import annotations

from typing import Any

import pytest

from berth_operator.kube.instances import Heard, start_of
from berth_operator.kube.store import Body
from berth_operator.kube.words import Words
from berth_operator.model import Ready
from berth_operator.roster import Roster
from kubekit.bodies import FLEET, STARTED, deleted, pod, running
from kubekit.clock import Clock
from kubekit.gateways import FakeAdmin

URL = "http://10.0.0.1:8000"


class Ears:
    """A gateway that reaches the worker of pod-0, whoever that is at the time."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.admin = FakeAdmin(self.clock)
        self.admin.answers[URL] = "pod-0.first"
        self.roster = Roster(self.admin, self.clock)  # type: ignore[arg-type]
        self.words = Words(self.admin, self.roster)  # type: ignore[arg-type]

    async def hear(self, *pods: Body) -> dict[str, Heard]:
        await self.roster.look()
        await self.words.hear(FLEET, pods)
        return self.words.heard

    def asked(self) -> list[tuple[Any, ...]]:
        return self.admin.asked("register_worker")


@pytest.fixture
def ears() -> Ears:
    return Ears()


async def test_a_worker_that_is_ready_is_asked_and_registered(ears: Ears) -> None:
    heard = await ears.hear(running())
    assert heard["pod-0"] == Heard(start_of(running()) or "", Ready("pod-0.first", URL))
    assert "pod-0.first" in ears.admin.workers_known


async def test_once(ears: Ears) -> None:
    await ears.hear(running())
    await ears.hear(running())
    assert len(ears.asked()) == 1


@pytest.mark.parametrize("body", [pod(), running(ready=False), pod(podIP="10.0.0.1")], ids=["pending", "busy", "new"])
async def test_one_that_is_not_ready_is_left_in_peace(ears: Ears, body: Body) -> None:
    assert await ears.hear(body) == {}
    assert ears.asked() == []


async def test_another_start_is_another_worker(ears: Ears) -> None:
    await ears.hear(running())
    ears.admin.answers[URL] = "pod-0.second"
    heard = await ears.hear(running(start="2026-09-21T14:13:00Z"))
    assert heard["pod-0"].ready == Ready("pod-0.second", URL)


async def test_one_that_cannot_be_reached_is_asked_again(ears: Ears) -> None:
    ears.admin.answers.clear()
    assert await ears.hear(running()) == {}
    ears.admin.answers[URL] = "pod-0.first"
    assert "pod-0" in await ears.hear(running())


async def test_a_strangers_answer_is_a_trouble(ears: Ears) -> None:
    """The address has another pod by now."""
    ears.admin.answers[URL] = "pod-9.boot"
    assert await ears.hear(running()) == {}
    trouble = ears.words.refused["pod-0"]
    assert (trouble.reason, trouble.message) == (
        "Refused",
        "the gateways refuse tiny-0a1b2c3d-0: another pod's",
    )
    ears.admin.answers[URL] = "pod-0.first"
    await ears.hear(running())
    assert ears.words.refused == {}


async def test_while_no_gateway_answers_nobody_is_asked(ears: Ears) -> None:
    """Nobody can say who is cordoned, and registering would take that back."""
    ears.admin.down = True
    await ears.hear(running())
    assert ears.asked() == []


class TestNewcomer:
    """An operator that has just come, where another one has been."""

    async def test_does_not_take_a_cordon_back(self, ears: Ears) -> None:
        ears.admin.register("pod-0.first", URL, cordoned=True)
        await ears.hear(running())
        assert ears.admin.workers_known["pod-0.first"].cordoned

    async def test_nor_that_of_an_earlier_start(self, ears: Ears) -> None:
        ears.admin.register("pod-0.zeroth", URL, cordoned=True)
        await ears.hear(running())
        assert ears.admin.workers_known["pod-0.first"].cordoned

    async def test_and_opens_none_that_was_told_to_end(self, ears: Ears) -> None:
        await ears.hear(deleted(running(), STARTED))
        assert ears.admin.workers_known["pod-0.first"].cordoned

    async def test_believes_the_gateways_where_the_worker_is_too_busy(self, ears: Ears) -> None:
        ears.admin.register("pod-0.first", URL)
        ears.admin.answers.clear()
        heard = await ears.hear(running())
        assert heard["pod-0"].ready == Ready("pod-0.first", URL)
        await ears.hear(running())
        assert len(ears.asked()) == 2, "its own word is still wanted"

    async def test_but_not_of_a_start_it_has_not_seen(self, ears: Ears) -> None:
        await ears.hear(running())
        ears.admin.answers.clear()
        heard = await ears.hear(running(start="2026-09-21T14:13:00Z"))
        assert heard["pod-0"].start == start_of(running())

    async def test_nor_at_another_address(self, ears: Ears) -> None:
        ears.admin.register("pod-0.first", "http://10.0.0.77:8000")
        ears.admin.answers.clear()
        assert await ears.hear(running()) == {}


async def test_the_dead_are_forgotten(ears: Ears) -> None:
    await ears.hear(running())
    ears.words.keep(set())
    assert ears.words.heard == {}
    assert ears.words._asked == set()
