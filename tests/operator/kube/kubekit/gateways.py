"""A gateway and its ledger, as far as the operator sees them: workers, sessions, and what moved."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from berth_api.admin import (
    AdminSession,
    Change,
    Changes,
    FleetView,
    Recovery,
    SessionPut,
    WorkerFound,
    WorkerPut,
    WorkerView,
)
from berth_operator.errors import AdminRefused, AdminUnavailable, CursorGone
from berth_operator.kube.store import Key
from kubekit.clock import Clock


class FakeAdmin:
    """Stands in for `AdminClient`. `answers` says which worker a gateway finds at an address; `calls` has all asked."""

    def __init__(self, clock: Clock) -> None:
        self.down = False
        self.answers: dict[str, str] = {}
        self.workers_known: dict[str, WorkerView] = {}
        self.known: dict[Key, AdminSession] = {}
        self.closed: dict[str, str] = {}
        """Reasons by the uid of a session that is closed for good."""
        self.refusals: dict[str, AdminRefused] = {}
        """What the next calls of a name are answered with."""
        self.pending = 0
        """Turns that wait for capacity of the fleet."""
        self.calls: list[tuple[Any, ...]] = []
        self._clock = clock
        self._fleets: set[tuple[str, str]] = set()
        """Those that ever had a worker: no others exist."""
        self._changes: list[tuple[str, Change]] = []
        self._first = 0

    def asked(self, *names: str) -> list[tuple[Any, ...]]:
        """Return the calls of these names, oldest first."""
        return [call for call in self.calls if call[0] in names]

    # What a test does -----------------------------------------------------------------------------------------------

    def register(self, id_: str, url: str, *, cordoned: bool = False, **seen: Any) -> None:
        """Have a worker of fleet team/tiny registered."""
        facts = {"suspect": False, "running": [], "idle": [], "waiting": self.pending} | seen
        self._fleets.add(("team", "tiny"))
        self.workers_known[id_] = WorkerView(
            id=id_,
            namespace="team",
            fleet="tiny",
            url=url,
            slots=4,
            fingerprint="f",
            cordoned=cordoned,
            **facts,
        )

    def change(self, name: str, namespace: str = "team", **facts: Any) -> None:
        """Have a session moved on by somebody else than the operator; without facts it is gone."""
        key = Key(namespace, name)
        if facts:
            self.known[key] = replace(self.known[key], **facts)
        else:
            del self.known[key]
        self.note("session", name, namespace=namespace)

    def note(self, kind: str, name: str, what: str = "moved", *, namespace: str = "team") -> None:
        self._changes.append((namespace, Change(kind, name, what)))  # type: ignore[arg-type]

    def forget_changes(self) -> None:
        """Let every cursor be too old."""
        self._first = len(self._changes) + 1
        self._changes.append(("", Change("fleet", "", "")))

    # What the operator does -----------------------------------------------------------------------------------------

    async def workers(self) -> list[WorkerView]:
        self._called("workers")
        return list(self.workers_known.values())

    async def put_worker(self, worker_id: str, worker: WorkerPut) -> None:
        self._called("put_worker", worker_id, worker.cordoned)
        if worker_id in self.workers_known:
            self.workers_known[worker_id] = replace(self.workers_known[worker_id], cordoned=worker.cordoned)
        else:
            self.register(worker_id, worker.url, cordoned=worker.cordoned)

    async def register_worker(self, found: WorkerFound) -> WorkerView:
        self._called("register_worker", found.uid, found.cordoned)
        if found.url not in self.answers:
            raise AdminUnavailable(f"the worker at {found.url} cannot be asked")
        id_ = self.answers[found.url]
        if not id_.startswith(f"{found.uid}."):
            raise AdminRefused("another pod's", type_="invalid_request", status=400, members={"field": "url"})
        self.register(id_, found.url, cordoned=found.cordoned)
        return self.workers_known[id_]

    async def drop_worker(self, worker_id: str) -> None:
        self._called("drop_worker", worker_id)
        self.workers_known.pop(worker_id, None)

    async def fleet(self, namespace: str, name: str) -> FleetView:
        self._called("fleet", name)
        self._check_fleet(namespace, name)
        workers = [each for each in self.workers_known.values() if (each.namespace, each.fleet) == (namespace, name)]
        slots = sum(worker.slots for worker in workers)
        running = sum(len(worker.running) for worker in workers)
        resident = running + sum(len(worker.idle) for worker in workers)
        return FleetView(
            namespace, name, "f", slots, resident, running, slots - resident, self.pending, 0, len(workers)
        )

    async def namespaces(self) -> list[str]:
        self._called("namespaces")
        return sorted({namespace for namespace, _ in self._fleets})

    async def sessions(self, namespace: str, origin: str | None = None) -> list[AdminSession]:
        self._called("sessions", namespace)
        here = [each for key, each in self.known.items() if key.namespace == namespace]
        return [each for each in here if origin in (None, each.origin)]

    async def session(self, namespace: str, name: str) -> AdminSession:
        self._called("session", name)
        if Key(namespace, name) not in self.known:
            raise AdminRefused("no such session", type_="no_such_session", status=404)
        return self.known[Key(namespace, name)]

    async def put_session(self, namespace: str, name: str, session: SessionPut) -> AdminSession:
        self._called("put_session", name, session)
        if session.uid in self.closed:
            members = {"reason": self.closed[session.uid], "closed": True}
            raise AdminRefused("it was closed", type_="session_closing", status=409, members=members)
        key = Key(namespace, name)
        there = self.known.get(key)
        if there is not None and there.origin == "http":
            raise AdminRefused("there is one", type_="session_exists", status=409)
        if there is None or there.uid != session.uid:
            self._check_fleet(namespace, session.fleet)
            if there is not None:
                self.closed[there.uid] = "replaced"
            there = record(name, session.uid, namespace=namespace)
        made = replace(
            there,
            fleet=session.fleet,
            idle_timeout_s=session.idle_timeout_s,
            hibernate_after_s=session.hibernate_after_s,
            max_tokens=session.max_tokens,
            on_worker_failure=session.on_worker_failure,
            deletion_policy=session.deletion_policy,
            suspended=session.suspend,
            worker=None if session.suspend else self._slot(there.worker) if session.bind else there.worker,
            stranded=False if session.bind else there.stranded,
        )
        self.known[key] = made
        self.note("session", name, "opened", namespace=namespace)
        return made

    async def close_session(self, namespace: str, name: str, uid: str) -> bool:
        self._called("close_session", name, uid)
        key = Key(namespace, name)
        if key in self.known and self.known[key].uid == uid:
            if self.known[key].deletion_policy == "Retain":
                self.change(name, namespace, origin="http")
            else:
                self.closed[uid] = "deleted"
                self.change(name, namespace)
        return False

    async def changes(self, namespace: str, after: str | None = None) -> Changes:
        self._called("changes", namespace)
        last = len(self._changes)
        if after is None:
            return Changes(str(last), [])
        if int(after) < self._first:
            raise CursorGone("list again", type_="cursor_gone", status=410)
        found = [change for where, change in self._changes[int(after) :] if where == namespace]
        return Changes(str(last), found)

    def _check_fleet(self, namespace: str, name: str) -> None:
        if (namespace, name) not in self._fleets:
            raise AdminRefused(f"no fleet {namespace}/{name}", type_="no_such_fleet", status=404)

    def _slot(self, held: str | None) -> str | None:
        free = (worker.id for worker in self.workers_known.values() if not worker.cordoned)
        return held if held in self.workers_known else next(free, None)

    def _called(self, call: str, *what: Any) -> None:
        self._clock.call()
        self.calls.append((call, *what))
        if self.down:
            raise AdminUnavailable("no gateway answers: fault of the test")
        if call in self.refusals:
            raise self.refusals[call]


def record(name: str = "alice", uid: str = "session-1", *, namespace: str = "team", **facts: Any) -> AdminSession:
    """Return a session as the ledger has it: opened by a resource, without a turn, holding no slot."""
    base = AdminSession(
        namespace=namespace,
        name=name,
        uid=uid,
        origin="cr",
        fleet="tiny",
        state="hibernated",
        head="",
        turns=0,
        tokens=0,
        worker=None,
        last_active=0.0,
        endpoint=f"/v1/sessions/{namespace}/{name}/turns",
    )
    return replace(base, **facts)


def recovery(from_: str, to: str, at: float, reason: str = "worker_lost") -> Recovery:
    return Recovery(from_, to, reason, at)  # type: ignore[arg-type]
