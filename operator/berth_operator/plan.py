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
from typing import Any

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
    wanted = {fleet.key: fleet for fleet in fleets}
    if len(wanted) != len(fleets):
        raise ValueError(f"a fleet is wanted twice: {[str(key) for key, n in _count(fleets).items() if n > 1]}")
    unwanted = sorted({i.place.fleet for i in seen.instances} - set(wanted))
    everything = [*wanted.values(), *(Fleet(key, 0) for key in unwanted)]
    actions = [action for fleet in everything for action in _plan_fleet(fleet, seen, policy)]
    return [*actions, *_drops(seen)]


def _count(fleets: Iterable[Fleet]) -> Counter[FleetKey]:
    return Counter(fleet.key for fleet in fleets)


def _plan_fleet(fleet: Fleet, seen: Seen, policy: Policy) -> Iterator[Action]:
    here = [instance for instance in seen.instances if instance.place.fleet == fleet.key]
    live = [instance for instance in here if not instance.stopping]
    yield from _starts(fleet, _missing(fleet, live, seen), here, seen, policy)
    if seen.registered is None:
        return
    known = {worker.id: worker for worker in seen.registered if worker.fleet == fleet.key}
    yield from _farewells(here, known)
    hung = {instance.place for instance in live if _hung(instance, seen.now, policy)}
    yield from (Kill(instance.place) for instance in live if instance.place in hung)
    # A worker about to be killed still counts: its replacement starts once it is gone, so surplus is judged without it.
    sound = [instance for instance in live if instance.place not in hung]
    by_loss = sorted(sound, key=lambda instance: _loss(instance, known, seen.now))
    outdated = _outdated(fleet, by_loss, known)
    surplus = _surplus(fleet, [each for each in by_loss if each.place not in outdated], known)
    drain_s = policy.drain_s if fleet.drain_s is None else fleet.drain_s
    for instance in sound:
        if instance.place in outdated:
            yield from _remove(instance, known, seen.now, drain_s, give_back=False)
        elif instance.place in surplus:
            # Where nobody is to serve, turns that keep coming would bring the last one back for ever.
            yield from _remove(instance, known, seen.now, drain_s, give_back=fleet.replicas > 0)
        else:
            yield from _keep(instance, known)


def _missing(fleet: Fleet, live: list[Instance], seen: Seen) -> int:
    """How many to start. Surge is for replacing what still serves, so never while nobody can say what does."""
    new = sum(instance.place.revision == fleet.revision for instance in live)
    rolling = len(live) > new and seen.registered is not None
    room = fleet.replicas + fleet.max_surge * rolling - len(live)
    return min(fleet.replicas - new, room)


def _starts(fleet: Fleet, missing: int, here: list[Instance], seen: Seen, policy: Policy) -> Iterator[Start]:
    """Fill the lowest free places; a place that waits for its backoff is left to wait, not passed over."""
    taken = {instance.place.ordinal for instance in here if instance.place.revision == fleet.revision}
    free = (n for n in range(len(here) + max(0, missing)) if n not in taken)
    for _, ordinal in zip(range(missing), free, strict=False):
        place = Place(fleet.key, ordinal, fleet.revision)
        if policy.backoff.due(seen.restarts.get(place, Restarts())) <= seen.now:
            yield Start(place)


def _farewells(here: list[Instance], known: dict[str, Registration]) -> Iterator[Cordon]:
    """Nothing new begins where the end was ordered (by anybody), or where nobody knows what goes on."""
    for instance in here:
        worker = known.get(instance.ready.id) if instance.ready else None
        if instance.ready and worker and not worker.cordoned and (instance.stopping or instance.unreachable):
            yield Cordon(instance.place, instance.ready)


def _hung(instance: Instance, now: float, policy: Policy) -> bool:
    if instance.unhealthy_since is not None and now - instance.unhealthy_since >= policy.liveness_s:
        return True
    return instance.ready is None and now - instance.started_at >= policy.start_s


def _loss(instance: Instance, known: dict[str, Registration], now: float) -> tuple[Any, ...]:
    """Order by what a removal loses. Those on their way out first, then the emptiest, then the longest idle."""
    worker = known.get(instance.ready.id) if instance.ready else None
    if worker is None:
        return (False, instance.ready is not None, False, 0, 0, 0.0, -instance.place.ordinal)
    sick = instance.unhealthy_since is not None
    idle_since = now if worker.idle_since is None else worker.idle_since
    rank = (True, not sick, not worker.cordoned)
    return (*rank, worker.running, worker.resident, idle_since, -instance.place.ordinal)


def _serves(instance: Instance, known: dict[str, Registration]) -> bool:
    """Whether it takes new turns."""
    worker = known.get(instance.ready.id) if instance.ready else None
    sound = instance.unhealthy_since is None and not instance.unreachable
    return worker is not None and not worker.cordoned and sound


def _outdated(fleet: Fleet, by_loss: list[Instance], known: dict[str, Registration]) -> set[Place]:
    """Choose who of another revision may go now: whoever does not serve, then as many as may be unavailable."""
    old = [instance for instance in by_loss if instance.place.revision != fleet.revision]
    serving = [instance.place for instance in old if _serves(instance, known)]
    spare = sum(_serves(instance, known) for instance in by_loss) - (fleet.replicas - fleet.max_unavailable)
    return {instance.place for instance in old} - set(serving) | set(serving[: max(0, spare)])


def _surplus(fleet: Fleet, staying: list[Instance], known: dict[str, Registration]) -> set[Place]:
    """Choose who goes because there are too many: before all whoever does not serve, then the outdated."""
    rolling = any(instance.place.revision != fleet.revision for instance in staying)
    allowed = fleet.replicas + fleet.max_surge * rolling

    def rank(instance: Instance) -> tuple[bool, bool]:
        return _serves(instance, known), instance.place.revision == fleet.revision

    return {instance.place for instance in sorted(staying, key=rank)[: max(0, len(staying) - allowed)]}


def _remove(
    instance: Instance, known: dict[str, Registration], now: float, drain_s: float, *, give_back: bool
) -> Iterator[Action]:
    """Two phases: no new turns, then, once none runs (or the deadline has passed), the end.

    `give_back`: turns that find no room are worth more than a prompt removal. Not where a replacement brings the room.
    """
    worker = known.get(instance.ready.id) if instance.ready else None
    if instance.ready is None or worker is None:
        # No gateway was ever told of it, so nothing can run there.
        yield Stop(instance.place)
    elif not worker.cordoned:
        if not (worker.waiting and give_back):
            yield Cordon(instance.place, instance.ready)
    elif _overdue(worker, now, drain_s):
        yield Stop(instance.place)
    elif worker.waiting and give_back and not instance.unreachable:
        yield Uncordon(instance.place, instance.ready)
    elif not worker.running:
        yield Stop(instance.place)


def _overdue(worker: Registration, now: float, drain_s: float) -> bool:
    return worker.cordoned_since is not None and now - worker.cordoned_since >= drain_s


def _keep(instance: Instance, known: dict[str, Registration]) -> Iterator[Action]:
    ready = instance.ready
    if ready is None or instance.unreachable:
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
    there = [instance for instance in seen.instances if not instance.given_up]
    alive = {instance.ready.id for instance in there if instance.ready}
    silent = {instance.uid for instance in there if instance.ready is None and instance.running}
    for worker in seen.registered or ():
        if worker.id not in alive and worker.id.rpartition(".")[0] not in silent:
            yield Drop(worker.id)
