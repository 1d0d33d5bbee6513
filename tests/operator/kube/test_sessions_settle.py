"""A session that is as it was costs a look next to nothing: a thousand of them are looked at after every list."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from berth_api.admin import AdminSession
from berth_operator.kube.metrics import Metrics
from berth_operator.kube.session_status import FleetWord
from berth_operator.kube.sessions import Sessions
from berth_operator.kube.status_writer import Pace, StatusWriter
from berth_operator.kube.store import Key, Store

KEY = Key("default", "alice")
RECORD = AdminSession(
    namespace="default",
    name="alice",
    uid="u",
    origin="cr",
    fleet="tiny",
    state="idle",
    head="",
    turns=0,
    tokens=0,
    worker=None,
    last_active=0.0,
    endpoint="/v1/sessions/default/alice",
)


class World:
    """An API server that takes statuses, and a ledger that has one session."""

    def __init__(self) -> None:
        self.store = Store(lambda *_: None, lambda *_: None, self.clock)
        self.record = RECORD
        self.fleet = FleetWord(exists=True, usable=1)
        self.written: list[dict[str, Any]] = []
        self.judged = 0
        writer = StatusWriter("session", self, self.store, Pace(0, 0), lambda: 0.0)
        self.sessions = Sessions(
            self.store,
            self,
            admin=self,
            ledger=self,
            writer=writer,
            metrics=Metrics(),
            clock=self.clock,
            word=lambda _: self.fleet,
            pod_of=lambda *_: "pod",
        )
        self.resource = {
            "metadata": {"namespace": "default", "name": "alice", "uid": "u", "generation": 1, "resourceVersion": "1"},
            "spec": {"fleet": "tiny"},
        }
        self.store.heard("session", self.resource, deleted=False)

    def clock(self) -> float:
        """Asked once by every look that judges."""
        self.judged += 1
        return 1e9

    def knows(self, namespace: str) -> bool:
        return namespace == "default"

    def get(self, key: Key) -> AdminSession | None:
        return self.record if key == KEY else None

    async def patch_status(self, _: Any, __: Any, status: dict[str, Any]) -> dict[str, Any]:
        self.written.append(status)
        body = copy.deepcopy(self.store.get("session", KEY))
        body["status"] = {**body.get("status", {}), **status}
        body["metadata"]["resourceVersion"] = str(int(body["metadata"]["resourceVersion"]) + 1)
        return body


@pytest.fixture
async def world() -> World:
    """A session whose status says what is so."""
    made = World()
    for _ in range(2):
        await made.sessions.look(KEY)
    assert len(made.written) == 1
    made.judged = 0
    return made


async def test_what_is_as_it_was_is_not_judged_again(world: World) -> None:
    for _ in range(3):
        await world.sessions.look(KEY)
    assert (world.judged, len(world.written)) == (0, 1)


async def test_another_word_of_the_ledger_is_judged(world: World) -> None:
    world.record = AdminSession(
        **{name: getattr(RECORD, name) for name in RECORD.__struct_fields__} | {"worker": "p.b"}
    )
    await world.sessions.look(KEY)
    assert world.written[-1]["worker"] == "pod"


async def test_another_word_of_the_fleet_is_judged(world: World) -> None:
    world.fleet = FleetWord(exists=True, message="none serves")
    await world.sessions.look(KEY)
    assert world.written[-1]["conditions"][0]["reason"] == "NoCapacity"


async def test_a_status_that_somebody_changed_is_put_right(world: World) -> None:
    meddled = copy.deepcopy(world.store.get("session", KEY))
    meddled["status"]["phase"] = "Failed"
    meddled["metadata"]["resourceVersion"] = "9"
    world.store.heard("session", meddled, deleted=False)
    await world.sessions.look(KEY)
    assert world.written[-1] == {"phase": "Hibernated"}
