"""From what is wanted and what is seen to what is to be done: the operator's whole judgement, without any I/O.

Level-triggered: each call looks at the present alone, so it does not matter how the world came to be so, nor how many
of the last actions were carried out before somebody was killed. Actions of one plan never contradict each other, and
each is safe to repeat.

When no gateway answers, the plan fails static: what is dead is replaced, but nothing is stopped. It may be this
observer that has lost its network, and then every worker looks just as dead as one that is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from berth_operator.model import (
    Action,
    Cordon,
    Drop,
    Fleet,
    FleetKey,
    Instance,
    Kill,
    Place,
    Register,
    Registration,
    Restarts,
    Seen,
    Start,
    Stop,
    Uncordon,
)
from berth_operator.policy import Policy


def plan(fleets: Sequence[Fleet], seen: Seen, policy: Policy) -> list[Action]:
    """Return the actions that bring the world nearer to the wanted fleets, starts first.

    Instances of a fleet that nobody wants are removed like any surplus. Raises ValueError for a fleet given twice.
    """
    wanted = {fleet.key: fleet.replicas for fleet in fleets}
    if len(wanted) != len(fleets):
        raise ValueError(f"a fleet is wanted twice: {[str(key) for key, n in _count(fleets).items() if n > 1]}")
    keys = [*wanted, *sorted({i.place.fleet for i in seen.instances} - set(wanted))]
    actions = [action for key in keys for action in _plan_fleet(key, wanted.get(key, 0), seen, policy)]
    return [*actions, *_drops(seen)]


def _count(fleets: Iterable[Fleet]) -> Counter[FleetKey]:
    return Counter(fleet.key for fleet in fleets)


def _plan_fleet(key: FleetKey, replicas: int, seen: Seen, policy: Policy) -> Iterator[Action]:
    here = [instance for instance in seen.instances if instance.place.fleet == key]
    live = [instance for instance in here if not instance.stopping]
    yield from _starts(key, replicas - len(live), here, seen, policy)
    if seen.registered is None:
        return
    known = {worker.id: worker for worker in seen.registered if worker.fleet == key}
    hung = [instance for instance in live if _hung(instance, seen.now, policy)]
    yield from (Kill(instance.place) for instance in hung)
    sound = [instance for instance in live if instance not in hung]
    # A worker about to be killed still counts: its replacement starts once it is gone, so surplus is judged without it.
    victims = _victims(sound, len(sound) - replicas, known, seen.now)
    for instance in sound:
        if instance in victims:
            yield from _remove(instance, known, seen.now, policy)
        else:
            yield from _keep(instance, known)


def _starts(key: FleetKey, missing: int, here: list[Instance], seen: Seen, policy: Policy) -> Iterator[Start]:
    """Fill the lowest free places; a place that waits for its backoff is left to wait, not passed over."""
    taken = {instance.place.ordinal for instance in here}
    free = (n for n in range(len(here) + max(0, missing)) if n not in taken)
    for _, ordinal in zip(range(missing), free, strict=False):
        place = Place(key, ordinal)
        if policy.backoff.due(seen.restarts.get(place, Restarts())) <= seen.now:
            yield Start(place)


def _hung(instance: Instance, now: float, policy: Policy) -> bool:
    if instance.ready is None:
        return now - instance.started_at >= policy.start_s
    return instance.unhealthy_since is not None and now - instance.unhealthy_since >= policy.liveness_s


def _victims(live: list[Instance], surplus: int, known: dict[str, Registration], now: float) -> list[Instance]:
    """Choose who goes: whoever loses least. Those on their way out first, then the emptiest, then the longest idle."""

    def loss(instance: Instance) -> tuple[bool, bool, bool, int, int, float, int]:
        worker = known.get(instance.ready.id) if instance.ready else None
        if worker is None:
            return (False, instance.ready is not None, False, 0, 0, 0.0, -instance.place.ordinal)
        sick = instance.unhealthy_since is not None
        idle_since = now if worker.idle_since is None else worker.idle_since
        rank = (True, not sick, not worker.cordoned)
        return (*rank, worker.running, worker.resident, idle_since, -instance.place.ordinal)

    return sorted(live, key=loss)[: max(0, surplus)]


def _remove(instance: Instance, known: dict[str, Registration], now: float, policy: Policy) -> Iterator[Action]:
    """Two phases: no new turns, then, once none runs (or the deadline has passed), the end."""
    worker = known.get(instance.ready.id) if instance.ready else None
    if instance.ready is None or worker is None:
        # No gateway was ever told of it, so nothing can run there.
        yield Stop(instance.place)
    elif not worker.cordoned:
        if not worker.waiting:
            yield Cordon(instance.place, instance.ready)
    elif _overdue(worker, now, policy):
        yield Stop(instance.place)
    elif worker.waiting:
        # Turns that find no room are worth more than a prompt removal.
        yield Uncordon(instance.place, instance.ready)
    elif not worker.running:
        yield Stop(instance.place)


def _overdue(worker: Registration, now: float, policy: Policy) -> bool:
    return worker.cordoned_since is not None and now - worker.cordoned_since >= policy.drain_s


def _keep(instance: Instance, known: dict[str, Registration]) -> Iterator[Action]:
    ready = instance.ready
    if ready is None:
        return
    worker = known.get(ready.id)
    if worker is None or worker.url != ready.url:
        yield Register(instance.place, ready)
    elif worker.cordoned:
        yield Uncordon(instance.place, ready)


def _drops(seen: Seen) -> Iterator[Drop]:
    """A registered worker that no instance answers for is gone, whoever started it and whenever.

    While an instance has not (or not yet again) given its word, whatever is registered from it may still be alive.
    """
    alive = {instance.ready.id for instance in seen.instances if instance.ready}
    silent = tuple(f"{instance.uid}." for instance in seen.instances if instance.ready is None)
    for worker in seen.registered or ():
        if worker.id not in alive and not worker.id.startswith(silent):
            yield Drop(worker.id)
