"""Statuses are written when they differ, in their time, and to the object that was judged."""

from __future__ import annotations

from typing import Any

import pytest

from berth_api.crd import Condition, History, SessionStatus
from berth_operator.errors import ClusterRefused, ClusterUnavailable
from berth_operator.kube.status_writer import Pace, StatusWriter, difference
from berth_operator.kube.store import Store
from kubekit.bodies import session
from kubekit.clock import Clock
from kubekit.cluster import FakeCluster

PACE = Pace(10.0, 300.0)


class Desk:
    """One session, and who writes its status."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.cluster = FakeCluster(self.clock)
        self.store = Store(lambda *_: None, lambda *_: None, self.clock)
        self.writer = StatusWriter("session", self.cluster, self.store, PACE, self.clock)  # type: ignore[arg-type]
        self.cluster.put("session", session())
        self.cluster.tell(self.store)

    @property
    def body(self) -> Any:
        return next(self.store.all("session"))

    async def write(self, status: SessionStatus) -> str | float:
        """Return what became of it, or how much too early it is."""
        early = self.writer.early_s(self.body, status)
        return early or await self.writer.write(self.body, status)

    def written(self) -> list[Any]:
        return [status for _, _, status in self.cluster.made("patch_status")]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def said(message: str = "it holds a slot", status: str = "True", **members: Any) -> SessionStatus:
    ready = Condition(
        type="Ready", status=status, reason="Bound", message=message, last_transition_time="2026-09-21T14:13:20Z"
    )
    return SessionStatus(conditions=[ready], **members)


class TestDifference:
    def test_only_what_has_changed(self) -> None:
        assert difference({"phase": "Bound", "worker": "a"}, {"phase": "Bound", "worker": "b"}) == {"worker": "b"}

    def test_what_is_gone_is_set_to_nothing(self) -> None:
        assert difference({"phase": "Bound", "worker": "a"}, {"phase": "Bound"}) == {"worker": None}

    def test_a_list_is_written_whole(self) -> None:
        assert difference({"conditions": [1, 2]}, {"conditions": [1, 3]}) == {"conditions": [1, 3]}

    def test_nothing(self) -> None:
        assert difference({"phase": "Bound"}, {"phase": "Bound"}) == {}


class TestPace:
    async def test_the_first_is_written_at_once(self, desk: Desk) -> None:
        assert await desk.write(said(phase="Pending")) == "written"

    async def test_what_is_so_already_is_not_written(self, desk: Desk) -> None:
        await desk.write(said(phase="Pending"))
        assert await desk.write(said(phase="Pending")) == "same"
        assert len(desk.written()) == 1

    async def test_the_next_has_to_wait_for_its_time(self, desk: Desk) -> None:
        await desk.write(said(phase="Pending"))
        desk.clock.advance(4)
        assert await desk.write(said(phase="Bound")) == 6.0
        desk.clock.advance(6)
        assert await desk.write(said(phase="Bound")) == "written"
        assert desk.written()[-1] == {"phase": "Bound"}

    async def test_what_changes_all_the_time_is_written_once_in_ten_seconds(self, desk: Desk) -> None:
        for second in range(300):
            await desk.write(said(phase="Bound" if second % 2 else "Hibernated"))
            desk.clock.advance(1)
        assert len(desk.written()) <= 30

    async def test_a_first_turn_is_told_soon(self, desk: Desk) -> None:
        await desk.write(said())
        desk.clock.advance(10)
        assert await desk.write(said(history=History(turns=1, head="a"))) == "written"

    async def test_further_ones_seldom(self, desk: Desk) -> None:
        await desk.write(said(history=History(turns=1, head="a")))
        desk.clock.advance(100)
        assert await desk.write(said(history=History(turns=2, head="b"))) == 200.0
        desk.clock.advance(200)
        assert await desk.write(said(history=History(turns=3, head="c"))) == "written"

    async def test_but_along_with_anything_else(self, desk: Desk) -> None:
        await desk.write(said(history=History(turns=1, head="a")))
        desk.clock.advance(10)
        assert await desk.write(said(phase="Bound", history=History(turns=2, head="b"))) == "written"

    async def test_other_words_for_the_same_verdict_wait_as_long(self, desk: Desk) -> None:
        """An image that cannot be pulled is complained of in two ways by turns, to each of a thousand sessions."""
        await desk.write(said("ErrImagePull: no such host"))
        desk.clock.advance(10)
        assert await desk.write(said("ImagePullBackOff: back-off")) == 290.0
        assert await desk.write(said("ImagePullBackOff: back-off", status="False")) == "written"

    async def test_who_has_just_come_does_not_begin_with_histories(self, desk: Desk) -> None:
        await desk.write(said(history=History(turns=1, head="a")))
        desk.clock.advance(1000)
        desk.writer = StatusWriter("session", desk.cluster, desk.store, PACE, desk.clock)  # type: ignore[arg-type]
        assert await desk.write(said(history=History(turns=2, head="b"))) == 300.0
        assert await desk.write(said(phase="Bound", history=History(turns=2, head="b"))) == "written"

    async def test_the_dead_are_forgotten(self, desk: Desk) -> None:
        await desk.write(said())
        desk.writer.keep({"another"})
        assert desk.writer._wrote == {}


class TestFence:
    async def test_one_that_is_gone_is_let_be(self, desk: Desk) -> None:
        desk.cluster.remove("session", "alice")
        assert await desk.write(said()) == "late"

    async def test_so_is_one_that_was_made_again(self, desk: Desk) -> None:
        desk.cluster.remove("session", "alice")
        made = desk.cluster.put("session", session(uid="session-2"))
        assert await desk.write(said()) == "late"
        assert "status" not in made

    async def test_and_one_that_somebody_has_changed(self, desk: Desk) -> None:
        desk.cluster.put("session", session(suspend=True))
        assert await desk.write(said()) == "late"
        desk.cluster.tell(desk.store)
        assert await desk.write(said()) == "written"

    async def test_what_was_written_is_known_before_the_watch_tells(self, desk: Desk) -> None:
        await desk.write(said(phase="Bound"))
        assert desk.body["status"]["phase"] == "Bound"

    @pytest.mark.parametrize("error", [ClusterRefused("invalid", status=422), ClusterUnavailable("later")])
    async def test_other_failures_are_for_whoever_looks(self, desk: Desk, error: Exception) -> None:
        desk.cluster.breaks("patch_status", error)
        with pytest.raises(type(error)):
            await desk.write(said())
        assert await desk.write(said()) == "written"
