"""The worker processes of this machine, as instances of the plan."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from berth_operator.local.processes import Child
from berth_operator.local.state_dir import StateDir, WorkerEntry
from berth_operator.model import Instance, Place, Ready, Restarts

_UID_BYTES = 4


@dataclass
class _Worker:
    child: Child
    uid: str
    started_at: float


class Workers:
    """Starts, stops and lists them. A process that has ended is listed no more once `bury` has returned it."""

    def __init__(self, command: Sequence[str], state: StateDir, changed: Callable[[], None], grace_s: float) -> None:
        self._command = command
        self._state = state
        self._changed = changed
        self._grace_s = grace_s
        self._at: dict[Place, _Worker] = {}
        self._ends: set[asyncio.Task[None]] = set()
        self.restarts: dict[Place, Restarts] = {}

    def start(self, place: Place, now: float) -> None:
        """Start a worker at a free place. Raises OSError when that fails, which counts as a failure of the place."""
        uid = f"{place}-{secrets.token_hex(_UID_BYTES)}"
        command = [*self._command, "--pod-uid", uid]
        log = self._state.log(f"worker-{place}")
        try:
            child = Child(f"worker {place}", command, log=log, on_change=self._changed)
        except OSError:
            self._failed(place, now)
            raise
        self._at[place] = _Worker(child, uid, now)

    def stop(self, place: Place) -> None:
        """Begin an orderly end; it is killed if it takes too long."""
        end = asyncio.create_task(self._at[place].child.end(self._grace_s))
        self._ends.add(end)
        end.add_done_callback(self._ends.discard)
        self._at[place].child.told_to_stop = True

    def kill(self, place: Place) -> None:
        self._at[place].child.kill()

    def bury(self, now: float) -> list[tuple[Place, Child]]:
        """Return those that have ended since the last call; an end that nobody ordered counts as a failure."""
        ended = [(place, worker.child) for place, worker in self._at.items() if not worker.child.alive]
        for place, child in ended:
            del self._at[place]
            if not child.told_to_stop:
                self._failed(place, now)
        return ended

    def _failed(self, place: Place, now: float) -> None:
        self.restarts[place] = self.restarts.get(place, Restarts()).failed(now)

    def instances(self, unhealthy: Mapping[str, float]) -> list[Instance]:
        """Return all that exist, with since when each (by id) fails; whoever is ready has its failures forgotten."""
        found = []
        for place, worker in self._at.items():
            ready = word(worker.child)
            if ready:
                self.restarts.pop(place, None)
            sick = unhealthy.get(ready.id) if ready else None
            found.append(Instance(place, worker.uid, worker.started_at, ready, sick, worker.child.told_to_stop))
        return found

    def entry(self, place: Place) -> WorkerEntry | None:
        """Return the worker at a place, if it is ready."""
        worker = self._at.get(place)
        ready = word(worker.child) if worker else None
        return WorkerEntry(ready.id, ready.url, worker.child.pid) if worker and ready else None

    def entries(self) -> list[WorkerEntry]:
        return [entry for place in sorted(self._at) if (entry := self.entry(place))]

    def children(self) -> list[Child]:
        return [worker.child for worker in self._at.values()]


def word(child: Child) -> Ready | None:
    """Return a worker's own word that it serves."""
    return Ready(str(child.ready["id"]), str(child.ready["url"]).rstrip("/")) if child.ready else None
