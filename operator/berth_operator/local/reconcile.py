"""Carries the plan out on this machine's workers: look, decide, act, as often as anything may have changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from berth_api.admin import WorkerPut
from berth_operator.admin_client import AdminClient
from berth_operator.errors import AdminRefused, AdminUnavailable
from berth_operator.local.events import Event, Problem, WorkerUp
from berth_operator.local.health import Health
from berth_operator.local.workers import Workers
from berth_operator.model import (
    Action,
    Cordon,
    Drop,
    Fleet,
    Kill,
    Place,
    Ready,
    Register,
    Registration,
    Seen,
    Start,
    Stop,
    Uncordon,
)
from berth_operator.plan import plan
from berth_operator.policy import Policy
from berth_operator.roster import Roster


class Reconciler:
    """One fleet's workers. `refusal` is why the gateways refused one at the last step, where nothing was done that may
    change their mind.
    """

    def __init__(
        self,
        fleet: Fleet,
        policy: Policy,
        workers: Workers,
        *,
        health: Health,
        admin: AdminClient,
        report: Callable[[Event], None],
    ) -> None:
        self.refusal: AdminRefused | None = None
        self._fleet = fleet
        self._policy = policy
        self._workers = workers
        self._health = health
        self._admin = admin
        self._roster = Roster(admin, _now)
        self._report = report
        self._announced: set[str] = set()
        self._refused: set[str] = set()

    @property
    def registered(self) -> tuple[Registration, ...] | None:
        """The gateways' view at the last step, None while they do not answer."""
        return self._roster.registered

    def replace_dead(self) -> None:
        """Start what is missing, without asking anybody."""
        now = _now()
        self._act(plan([self._fleet], self._seen(now, None), self._policy), now)

    async def step(self) -> None:
        """Bring the workers one step nearer to what is wanted, and the gateways' view nearer to the workers."""
        registered = await self._roster.look()
        now = _now()
        actions = plan([self._fleet], self._seen(now, registered), self._policy)
        # At once, while the plan is true of the present; the gateways may then take their time.
        self._act(actions, now)
        await self._tell(actions)

    def _seen(self, now: float, registered: tuple[Registration, ...] | None) -> Seen:
        instances = self._workers.instances(self._health.unhealthy)
        return Seen(now, tuple(instances), registered, self._workers.restarts)

    def _act(self, actions: Iterable[Action], now: float) -> None:
        for action in actions:
            match action:
                case Start(place):
                    self._start(place, now)
                case Stop(place):
                    self._workers.stop(place)
                case Kill(place):
                    self._report(Problem(f"worker {place} does not answer: it is killed"))
                    self._workers.kill(place)

    def _start(self, place: Place, now: float) -> None:
        try:
            self._workers.start(place, now)
        except OSError as error:
            self._report(Problem(f"worker {place} cannot be started: {error}"))

    async def _tell(self, actions: Iterable[Action]) -> None:
        refusal = None
        for action in actions:
            match action:
                case Register(_, ready) | Uncordon(_, ready):
                    refusal = await self._put(ready, cordoned=False) or refusal
                case Cordon(_, ready):
                    refusal = await self._put(ready, cordoned=True) or refusal
                case Drop(worker_id):
                    await self._drop(worker_id)
                    refusal = None  # those of an earlier run may have been all that stood in the way
        self.refusal = refusal

    async def _put(self, ready: Ready, *, cordoned: bool) -> AdminRefused | None:
        """Tell of a worker; return what the gateways have against it, for them to be asked again at the next step."""
        self._announce(ready)
        key = self._fleet.key
        try:
            await self._admin.put_worker(ready.id, WorkerPut(key.namespace, key.name, ready.url, cordoned=cordoned))
        except AdminRefused as error:
            message = f"the gateways refuse worker {ready.id}: {error}"
            if ready.id not in self._refused:
                self._refused.add(ready.id)
                self._report(Problem(message))
            return AdminRefused(message, type_=error.type, status=error.status)
        except AdminUnavailable:
            pass  # The next step sees that it is not registered.
        return None

    def _announce(self, ready: Ready) -> None:
        """Tell of a new worker before any session can be given to it."""
        if ready.id in self._announced:
            return
        self._announced.add(ready.id)
        for worker in self._workers.entries():
            if worker.id == ready.id:
                self._report(WorkerUp(worker.id, worker.url, worker.pid))

    async def _drop(self, worker_id: str) -> None:
        try:
            await self._admin.drop_worker(worker_id)
        except (AdminRefused, AdminUnavailable):
            return  # It is still listed at the next step.
        self._announced.discard(worker_id)
        self._refused.discard(worker_id)


def _now() -> float:
    return asyncio.get_running_loop().time()
