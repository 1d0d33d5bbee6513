"""Properties of the plan over every world that hypothesis can think of: it converges, and never does harm on the way.

The world here carries actions out the way processes and gateways do, and misbehaves between two plans: workers die,
hang, turns come and go, gateways vanish, the observer forgets.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from berth_operator.model import (
    Action,
    Cordon,
    Drop,
    Fleet,
    FleetKey,
    Instance,
    Kill,
    Place,
    Ready,
    Register,
    Registration,
    Restarts,
    Seen,
    Start,
    Stop,
    Uncordon,
)
from berth_operator.plan import plan
from berth_operator.policy import Policy

KEY = FleetKey("default", "default")
POLICY = Policy()
STEP_S = 5.0
ROUNDS = 80
QUIET_ROUNDS = 15
"""Longer than a hung worker or a backoff can be waited for: then no action will come by itself."""


@dataclass
class World:
    """Instances and registrations by uid and id; `turns` counts running turns by worker id."""

    now: float = 10_000.0
    instances: dict[str, Instance] = field(default_factory=dict)
    registered: dict[str, Registration] = field(default_factory=dict)
    restarts: dict[Place, Restarts] = field(default_factory=dict)
    admin: bool = True
    boots: int = 0

    def seen(self) -> Seen:
        known = tuple(self.registered.values()) if self.admin else None
        return Seen(self.now, tuple(self.instances.values()), known, dict(self.restarts))

    def at(self, place: Place) -> Instance:
        return next(instance for instance in self.instances.values() if instance.place == place)

    def end(self, place: Place) -> None:
        self.instances.pop(self.at(place).uid)

    def carry_out(self, action: Action) -> None:
        match action:
            case Start(place):
                assert all(instance.place != place for instance in self.instances.values()), "two at one place"
                self.boots += 1
                self.instances[f"u{self.boots}"] = Instance(place, f"u{self.boots}", self.now)
            case Register(_, ready):
                self.registered[ready.id] = Registration(KEY, ready.id, ready.url, False, 0, 0)
            case Drop(id_):
                assert id_ not in {i.ready.id for i in self.instances.values() if i.ready}, "dropped a live worker"
                self.registered.pop(id_, None)
            case Cordon(_, ready):
                worker = self.registered[ready.id]
                self.registered[ready.id] = replace(worker, cordoned=True, cordoned_since=self.now)
            case Uncordon(_, ready):
                worker = self.registered[ready.id]
                self.registered[ready.id] = replace(worker, cordoned=False, cordoned_since=None)
            case Stop(place) | Kill(place):
                self.end(place)

    def pass_time(self) -> None:
        """Let some seconds go by in which all that starts gets ready, and every hung worker stays hung."""
        self.now += STEP_S
        self.instances = {uid: instance for uid, instance in self.instances.items() if not instance.stopping}
        for uid, instance in self.instances.items():
            if instance.ready is None:
                self.instances[uid] = replace(instance, ready=Ready(f"{uid}.boot", f"http://{uid}"))
                self.restarts.pop(instance.place, None)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Any world, however it came to be: the plan has no past to rely on."""
    world = World(boots=100)
    for ordinal in draw(st.sets(st.integers(0, 5), max_size=5)):
        uid = f"u{ordinal}"
        ready = draw(st.sampled_from([None, Ready(f"{uid}.boot", f"http://{uid}")]))
        sick = draw(st.none() | st.floats(0, 200).map(lambda ago: world.now - ago))
        age = draw(st.floats(0, 2000))
        stopping = draw(st.booleans())
        unhealthy = sick if ready else None
        world.instances[uid] = Instance(Place(KEY, ordinal), uid, world.now - age, ready, unhealthy, stopping)
    for uid in draw(st.sets(st.sampled_from([*world.instances, "u50", "u51"]))):
        cordoned = draw(st.booleans())
        world.registered[f"{uid}.boot"] = Registration(
            KEY,
            f"{uid}.boot",
            f"http://{uid}",
            cordoned,
            running=draw(st.integers(0, 2)),
            resident=draw(st.integers(0, 3)),
            waiting=draw(st.integers(0, 1)),
            cordoned_since=draw(st.none() | st.floats(0, 200).map(lambda ago: world.now - ago)) if cordoned else None,
        )
    for ordinal in draw(st.sets(st.integers(0, 5))):
        world.restarts[Place(KEY, ordinal)] = Restarts(draw(st.integers(0, 12)), world.now)
    world.admin = draw(st.booleans())
    return world


replicas_wanted = st.integers(0, 4)


def decide(world: World, replicas: int) -> list[Action]:
    return plan([Fleet(KEY, replicas)], world.seen(), POLICY)


@given(worlds(), replicas_wanted)
def test_converges_from_any_state(world: World, replicas: int) -> None:
    """Once turns end and gateways answer, exactly the wanted workers run, registered and uncordoned."""
    world.admin = True
    world.registered = {k: replace(w, waiting=0, cordoned_since=world.now) for k, w in world.registered.items()}
    quiet = 0
    while quiet < QUIET_ROUNDS:
        actions = decide(world, replicas)
        for action in actions:
            world.carry_out(action)
        quiet = 0 if actions else quiet + 1
        assert world.boots < 120, "it starts workers without end"
        world.registered = {id_: replace(worker, running=0) for id_, worker in world.registered.items()}
        world.pass_time()
    assert len(world.instances) == replicas
    ids = {instance.ready.id for instance in world.instances.values() if instance.ready}
    assert {id_ for id_, worker in world.registered.items() if not worker.cordoned} == ids
    assert set(world.registered) == ids


@given(worlds(), replicas_wanted)
def test_actions_never_conflict(world: World, replicas: int) -> None:
    """At most one action a place and at most one a worker id; starts only where nothing stands."""
    actions = decide(world, replicas)
    places = Counter(action.place for action in actions if not isinstance(action, Drop))
    assert all(count == 1 for count in places.values())
    dropped = {action.id for action in actions if isinstance(action, Drop)}
    assert not dropped & {action.ready.id for action in actions if isinstance(action, Register | Cordon | Uncordon)}
    taken = {instance.place for instance in world.instances.values()}
    assert not taken & {action.place for action in actions if isinstance(action, Start)}


@given(worlds(), replicas_wanted)
def test_a_running_turn_is_left_in_peace_before_the_deadline(world: World, replicas: int) -> None:
    for action in decide(world, replicas):
        if not isinstance(action, Stop):
            continue
        ready = world.at(action.place).ready
        worker = world.registered.get(ready.id) if ready else None
        if worker is not None:
            overdue = worker.cordoned_since is not None and world.now - worker.cordoned_since >= POLICY.drain_s
            assert worker.cordoned
            assert worker.running == 0 or overdue


@given(worlds(), replicas_wanted)
def test_never_shrinks_below_what_is_wanted(world: World, replicas: int) -> None:
    """Workers still sound after the plan's removals are as many as wanted, or there were none to spare."""

    def sound(instance: Instance) -> bool:
        if instance.stopping:
            return False
        limit = POLICY.start_s if instance.ready is None else POLICY.liveness_s
        since = instance.started_at if instance.ready is None else instance.unhealthy_since
        return since is None or world.now - since < limit

    before = [instance for instance in world.instances.values() if sound(instance)]
    ended = {action.place for action in decide(world, replicas) if isinstance(action, Stop | Cordon)}
    after = [instance for instance in before if instance.place not in ended]
    assert len(after) >= min(replicas, len(before))


@given(worlds(), replicas_wanted)
def test_without_gateways_it_only_starts(world: World, replicas: int) -> None:
    world.admin = False
    assert all(isinstance(action, Start) for action in decide(world, replicas))


@given(worlds(), replicas_wanted, st.randoms(use_true_random=False))
def test_killed_at_any_step_it_converges(world: World, replicas: int, random: Random) -> None:
    """Half of each plan is lost, as when the operator dies: the next plan goes on from there."""
    world.admin = True
    world.registered = {k: replace(w, waiting=0, running=0) for k, w in world.registered.items()}
    for _ in range(ROUNDS):
        for action in decide(world, replicas):
            if random.random() < 0.5:
                world.carry_out(action)
        world.pass_time()
    assert len([i for i in world.instances.values() if not i.stopping]) == replicas
