"""Carrying the plan out, with workers and gateways that only keep account."""

from __future__ import annotations

import pytest

from berth_api.admin import WorkerPut, WorkerView
from berth_operator.errors import AdminRefused, AdminUnavailable
from berth_operator.local.events import Problem, WorkerUp
from berth_operator.local.reconcile import Reconciler
from berth_operator.local.state_dir import WorkerEntry
from berth_operator.model import Fleet, FleetKey, Instance, Place, Ready
from berth_operator.policy import Policy

KEY = FleetKey("default", "default")


class Workers:
    """Every started worker is ready at once."""

    def __init__(self, count: int) -> None:
        self.restarts = {}
        self.places = {Place(KEY, ordinal) for ordinal in range(count)}
        self.ended: list[Place] = []

    def start(self, place: Place, _: float) -> None:
        self.places.add(place)

    def stop(self, place: Place) -> None:
        self.places.remove(place)
        self.ended.append(place)

    kill = stop

    def entries(self) -> list[WorkerEntry]:
        return [WorkerEntry(f"u{p.ordinal}.b", f"http://{p.ordinal}", p.ordinal) for p in sorted(self.places)]

    def instances(self, _: object) -> list[Instance]:
        places, entries = sorted(self.places), self.entries()
        ready = [Ready(entry.id, entry.url) for entry in entries]
        return [Instance(p, f"u{p.ordinal}", 0.0, word) for p, word in zip(places, ready, strict=True)]


class Admin:
    """Keeps workers; `down` and `refusal` make it fail; `running` says who is busy."""

    def __init__(self) -> None:
        self.known: dict[str, WorkerPut] = {}
        self.running: dict[str, list[str]] = {}
        self.down = False
        self.refusal: AdminRefused | None = None

    async def workers(self) -> list[WorkerView]:
        if self.down:
            raise AdminUnavailable("down")
        return [
            WorkerView(id_, w.namespace, w.fleet, w.url, 4, "f", w.cordoned, False, self.running.get(id_, []), [])
            for id_, w in self.known.items()
        ]

    async def put_worker(self, worker_id: str, worker: WorkerPut) -> None:
        if self.refusal:
            raise self.refusal
        self.known[worker_id] = worker

    async def drop_worker(self, worker_id: str) -> None:
        self.known.pop(worker_id, None)


class Health:
    unhealthy: dict[str, float] = {}  # noqa: RUF012 - nobody writes it


@pytest.fixture
def make():
    """A reconciler of so many wanted workers, with its surroundings."""

    def build(wanted: int, running: int):
        workers, admin, events = Workers(running), Admin(), []
        reconciler = Reconciler(
            Fleet(KEY, wanted), Policy(), workers, health=Health(), admin=admin, report=events.append
        )
        return reconciler, workers, admin, events

    return build


async def test_a_worker_is_told_of_before_it_can_get_a_session(make) -> None:
    reconciler, _, admin, events = make(1, 1)
    registered_then = []
    reconciler._report = lambda event: (events.append(event), registered_then.append(dict(admin.known)))
    await reconciler.step()
    assert events == [WorkerUp("u0.b", "http://0", 0)]
    assert registered_then == [{}]
    assert admin.known["u0.b"] == WorkerPut("default", "default", "http://0")


async def test_a_worker_is_told_of_once_however_often_the_gateways_fail(make) -> None:
    reconciler, _, admin, events = make(1, 1)
    admin.refusal = AdminRefused("another model", type_="conflict", status=409)
    await reconciler.step()
    await reconciler.step()
    assert [type(event) for event in events] == [WorkerUp, Problem]
    assert "another model" in events[1].message


async def test_a_refusal_counts_once_nothing_of_an_earlier_run_is_left(make) -> None:
    reconciler, _, admin, _ = make(1, 1)
    admin.refusal = AdminRefused("another model", type_="conflict", status=409)
    admin.known = {"old.b": WorkerPut("default", "default", "http://old")}
    await reconciler.step()
    assert reconciler.refusal is None
    await reconciler.step()
    assert "another model" in str(reconciler.refusal)
    admin.refusal = None
    await reconciler.step()
    assert reconciler.refusal is None


async def test_a_smaller_fleet_loses_workers_in_two_phases(make) -> None:
    reconciler, workers, admin, _ = make(1, 2)
    admin.known = {
        "u0.b": WorkerPut("default", "default", "http://0"),
        "u1.b": WorkerPut("default", "default", "http://1"),
    }
    admin.running = {"u0.b": ["s"]}
    await reconciler.step()
    assert admin.known["u1.b"].cordoned
    assert workers.ended == []
    admin.running = {"u0.b": ["s"], "u1.b": ["late"]}
    await reconciler.step()
    assert workers.ended == []
    admin.running = {}
    await reconciler.step()
    assert workers.ended == [Place(KEY, 1)]
    await reconciler.step()
    assert set(admin.known) == {"u0.b"}


async def test_without_gateways_the_dead_are_replaced_and_nothing_ends(make) -> None:
    reconciler, workers, admin, _ = make(2, 3)
    admin.down = True
    workers.places.discard(Place(KEY, 0))
    workers.places.discard(Place(KEY, 1))
    await reconciler.step()
    assert len(workers.places) == 2
    assert workers.ended == []
    assert reconciler.registered is None


async def test_the_dead_are_replaced_without_asking_anybody(make) -> None:
    reconciler, workers, _, _ = make(2, 0)
    reconciler.replace_dead()
    assert len(workers.places) == 2
