"""The words of the plan: what is wanted, what is seen, what is to be done.

They name no process and no pod, so that one plan serves the processes of this machine and the pods of a cluster: an
*instance* is either. Times are seconds of whichever clock the observer uses, as long as it is the same one throughout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class FleetKey(NamedTuple):
    """A fleet's name within its namespace."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Place(NamedTuple):
    """Where an instance stands: no two live instances share a place, which makes it the fence of every start."""

    fleet: FleetKey
    ordinal: int
    revision: str = ""
    """Names what the instance is made from; "" where that never changes."""

    def __str__(self) -> str:
        return "-".join(filter(None, (self.fleet.name, self.revision, str(self.ordinal))))


@dataclass(frozen=True)
class Fleet:
    """What somebody wants: so many workers of a fleet, all of one revision in the end."""

    key: FleetKey
    replicas: int
    revision: str = ""
    max_surge: int = 0
    """Instances beyond `replicas` while another revision is being replaced."""
    max_unavailable: int = 1
    """Instances below `replicas` that may be out of service for that. Never both 0."""
    drain_s: float | None = None
    """How long a removal waits for running turns; None: as the policy says."""


@dataclass(frozen=True)
class Ready:
    """A worker's own word that it serves: its id (pod and boot) and where."""

    id: str
    url: str


@dataclass(frozen=True)
class Instance:
    """A process or pod that exists. One that has ended is not an instance any more: it is simply not listed."""

    place: Place
    uid: str
    """Of the process or pod. Ids of its workers are this, a dot and something that each boot makes anew."""
    started_at: float
    ready: Ready | None = None
    unhealthy_since: float | None = None
    """Since when `/health` has failed without a break, or its machine has been silent."""
    stopping: bool = False
    """It was told to end and has not yet."""
    running: bool = True
    """False: nothing runs in it now (it starts again, or not yet), so whatever was registered from it is gone."""
    unreachable: bool = False
    """Its machine is silent. It may serve all the same."""
    given_up: bool = False
    """It should have ended long ago, and nobody is there who could confirm it."""


@dataclass(frozen=True)
class Registration:
    """A worker as the gateways know it."""

    fleet: FleetKey
    id: str
    url: str
    cordoned: bool
    running: int
    """Sessions with a turn running there."""
    resident: int
    """Sessions that only hold a slot there."""
    waiting: int = 0
    """Turns that wait for capacity of the fleet."""
    idle_since: float | None = None
    """Since when nothing has been seen running there."""
    cordoned_since: float | None = None


@dataclass(frozen=True)
class Restarts:
    """How often the worker of a place has ended since it was last ready, and when it last did."""

    failures: int = 0
    last: float = 0.0

    def failed(self, now: float) -> Restarts:
        """Return the history with one more end."""
        return Restarts(self.failures + 1, now)


@dataclass(frozen=True)
class Seen:
    """One complete look at the world. Instances are always complete; the gateways may be out of reach."""

    now: float
    instances: tuple[Instance, ...]
    registered: tuple[Registration, ...] | None
    """None: no gateway answers. That says nothing about the workers."""
    restarts: dict[Place, Restarts]


@dataclass(frozen=True)
class Start:
    """Make an instance at a free place."""

    place: Place


@dataclass(frozen=True)
class Register:
    """Tell the gateways that a worker serves its fleet."""

    place: Place
    ready: Ready


@dataclass(frozen=True)
class Drop:
    """Tell the gateways that a worker is gone for good."""

    id: str


@dataclass(frozen=True)
class Cordon:
    """Let no new turn begin at a worker: the first phase of its removal."""

    place: Place
    ready: Ready


@dataclass(frozen=True)
class Uncordon:
    """Take a cordon back: the worker stays."""

    place: Place
    ready: Ready


@dataclass(frozen=True)
class Stop:
    """End an instance in an orderly way."""

    place: Place


@dataclass(frozen=True)
class Kill:
    """End an instance that does not answer."""

    place: Place


Action = Start | Register | Drop | Cordon | Uncordon | Stop | Kill
