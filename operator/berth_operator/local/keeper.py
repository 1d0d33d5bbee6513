"""Keeps the processes of a fleet alive: whatever has ended is started again, at once or after its backoff.

Until the fleet is up for the first time, a part that ends by its own decision ends the whole with its last words: a
model that does not exist will not exist at the next try either. Once it is up, parts are started again for ever.

This loop waits for nothing but local processes. What asks the gateways (reconcile.py) runs beside it, so that a silent
gateway never holds up a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from berth_operator.errors import ChildFailed
from berth_operator.local.events import Event, Problem, WorkerDied
from berth_operator.local.processes import Child
from berth_operator.local.reconcile import Reconciler
from berth_operator.local.services import Service
from berth_operator.local.settings import Times
from berth_operator.local.workers import Workers, word
from berth_operator.model import Restarts
from berth_operator.policy import Backoff

_STARTUP_FAILURES = 3
"""So often may a part be killed by others before the fleet is up."""


class Keeper:
    """Tends services and workers. `changed` wakes it; `up` says that the fleet was up once."""

    def __init__(
        self,
        services: Sequence[Service],
        workers: Workers,
        reconciler: Reconciler,
        *,
        times: Times,
        backoff: Backoff,
        report: Callable[[Event], None],
    ) -> None:
        self.changed = asyncio.Event()
        self.up = False
        self._services = services
        self._workers = workers
        self._reconciler = reconciler
        self._times = times
        self._backoff = backoff
        self._report = report

    async def run(self) -> None:
        """Run until cancelled. Raises ChildFailed when the fleet cannot come up."""
        while True:
            self.changed.clear()
            self._bury_workers()
            self._reconciler.replace_dead()
            for service in self._services:
                await self._tend(service)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self.changed.wait()

    def _bury_workers(self) -> None:
        for place, child in self._workers.bury(_now()):
            ready = word(child)
            if not child.told_to_stop:
                self._report(WorkerDied(ready.id if ready else None, child.pid, child.obituary()))
            self._give_up(child, self._workers.restarts.get(place, Restarts()))

    async def _tend(self, service: Service) -> None:
        dead = service.bury(_now())
        if dead is not None:
            self._report(service.died(dead))
            self._give_up(dead, service.restarts)
        if service.child is None and _now() >= self._backoff.due(service.restarts):
            self._start(service)
        if await service.look() and service.child is not None:
            self._report(service.up(service.child))

    def _start(self, service: Service) -> None:
        try:
            service.start(_now())
        except OSError as error:
            self._report(Problem(f"{service.name} cannot be started: {error}"))

    def _give_up(self, child: Child, restarts: Restarts) -> None:
        """Before the fleet is up, an end by its own decision is final; killed by others, it may try again."""
        if self.up or child.told_to_stop or child.returncode is None:
            return
        if child.returncode >= 0 or restarts.failures >= _STARTUP_FAILURES:
            raise ChildFailed(child.obituary())

    def _pause(self) -> float:
        """Return for how many seconds nothing is expected to happen by itself."""
        now = _now()
        due = [self._backoff.due(service.restarts) for service in self._services if service.child is None]
        due += [self._backoff.due(restarts) for restarts in self._workers.restarts.values()]
        due += [now + self._times.poll_s for service in self._services if service.must_be_asked]
        soon = [at for at in due if at > now]
        return min([now + self._times.tick_s, *soon]) - now


def _now() -> float:
    return asyncio.get_running_loop().time()
