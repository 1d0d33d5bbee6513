"""Properties of the plan over every world that hypothesis can think of: it converges, and never does harm on the way.

The world here carries actions out the way processes, pods and gateways do, and misbehaves between two plans: workers
die, hang, are told to end by others, machines fall silent, turns come and go, gateways vanish, the observer forgets.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from random import Random

from hypothesis import given, settings
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
NEW, OLD = "new", "old"
POLICY = Policy()
unhurried = settings(max_examples=150)
"""A loaded machine takes its time."""
STEP_S = 5.0
GIVEN_UP_S = 30.0
ROUNDS = 80
QUIET_ROUNDS = 15
"""Longer than a hung worker, a silent machine or a backoff can be waited for: then no action will come by itself."""


@dataclass
class World:
    """Instances and registrations by uid and id; `running` in a registration counts its turns.

    Whoever is told to end lingers until time has passed, and on a silent machine for ever: there it is given up.
    """

    now: float = 10_000.0
    instances: dict[str, Instance] = field(default_factory=dict)
    registered: dict[str, Registration] = field(default_factory=dict)
    restarts: dict[Place, Restarts] = field(default_factory=dict)
    told: dict[str, float] = field(default_factory=dict)
    admin: bool = True
    boots: int = 0

    def seen(self) -> Seen:
        known = tuple(self.registered.values()) if self.admin else None
        return Seen(self.now, tuple(self.instances.values()), known, dict(self.restarts))

    def at(self, place: Place) -> Instance:
        return next(instance for instance in self.instances.values() if instance.place == place)

    def serving(self) -> list[Instance]:
        """Return those that take new turns."""
        return [instance for instance in self.instances.values() if self.serves(instance)]

    def serves(self, instance: Instance) -> bool:
        worker = self.registered.get(instance.ready.id) if instance.ready else None
        well = instance.unhealthy_since is None and not instance.unreachable and not instance.stopping
        return well and worker is not None and not worker.cordoned

    def carry_out(self, action: Action) -> None:
        match action:
            case Start(place):
                assert all(instance.place != place for instance in self.instances.values()), "two at one place"
                self.boots += 1
                self.instances[f"u{self.boots}"] = Instance(place, f"u{self.boots}", self.now)
            case Register(_, ready):
                self.registered[ready.id] = Registration(KEY, ready.id, ready.url, False, 0, 0)
            case Drop(id_):
                assert not self._may_live(id_), "dropped a live worker"
                self.registered.pop(id_, None)
            case Cordon(_, ready):
                worker = self.registered[ready.id]
                self.registered[ready.id] = replace(worker, cordoned=True, cordoned_since=self.now)
            case Uncordon(_, ready):
                worker = self.registered[ready.id]
                self.registered[ready.id] = replace(worker, cordoned=False, cordoned_since=None)
            case Stop(place) | Kill(place):
                told = self.at(place)
                assert not told.stopping, "told to end twice"
                self.instances[told.uid] = replace(told, stopping=True)
                self.told[told.uid] = self.now

    def pass_time(self) -> None:
        """Let some seconds go by in which all that starts gets ready, and whoever hangs or is silent stays so."""
        self.now += STEP_S
        for uid, instance in list(self.instances.items()):
            if instance.stopping and not instance.unreachable:
                del self.instances[uid]
            elif instance.stopping:
                over = self.now - self.told.setdefault(uid, self.now) >= GIVEN_UP_S
                self.instances[uid] = replace(instance, given_up=instance.given_up or over)
            elif instance.ready is None and not instance.unreachable:
                ready = Ready(f"{uid}.boot", f"http://{uid}")
                self.instances[uid] = replace(instance, ready=ready, running=True)
                self.restarts.pop(instance.place, None)

    def turns_end(self) -> None:
        self.registered = {id_: replace(worker, running=0, waiting=0) for id_, worker in self.registered.items()}

    def _may_live(self, id_: str) -> bool:
        """Whether what is registered under an id may still run: it gave its word, or has not given another one yet."""
        for instance in self.instances.values():
            if instance.given_up:
                continue
            if instance.ready and instance.ready.id == id_:
                return True
            if instance.ready is None and instance.running and id_.startswith(f"{instance.uid}."):
                return True
        return False


CONDITIONS = ["well", "well", "well", "starting", "sick", "silent", "ending", "lost"]
"""Most workers are well most of the time; a world of ruins alone would never come near a rollout's bounds."""


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Any world, however it came to be: the plan has no past to rely on."""
    world = World(boots=100)
    places = st.builds(Place, st.just(KEY), st.integers(0, 5), st.sampled_from([NEW, OLD]))
    for place in draw(st.sets(places, max_size=7)):
        instance = draw(instances(place, world.now))
        world.instances[instance.uid] = instance
    for instance in list(world.instances.values()):
        if instance.ready and draw(st.sampled_from([True, True, True, False])):
            world.registered[instance.ready.id] = draw(registrations(instance.ready.id, world.now))
    for id_ in draw(st.sets(st.sampled_from(["u50.boot", "new0.earlier", "old1.earlier"]))):
        world.registered[id_] = draw(registrations(id_, world.now))
    for place in draw(st.sets(places, max_size=3)):
        world.restarts[place] = Restarts(draw(st.integers(0, 12)), world.now)
    world.admin = draw(st.sampled_from([True, True, True, False]))
    return world


def times(now: float) -> st.SearchStrategy[float]:
    """Moments of the past, before and after each limit of the policy."""
    return st.floats(0, 200).map(lambda ago: now - ago)


@st.composite
def instances(draw: st.DrawFn, place: Place, now: float) -> Instance:
    uid = f"{place.revision}{place.ordinal}"
    condition = draw(st.sampled_from(CONDITIONS))
    silent = condition in ("silent", "lost")
    has_word = condition != "starting" and draw(st.sampled_from([True, True, True, False]))
    return Instance(
        place,
        uid,
        now - draw(st.floats(0, 2000)),
        Ready(f"{uid}.boot", f"http://{uid}") if has_word else None,
        unhealthy_since=draw(times(now)) if silent or (condition == "sick" and has_word) else None,
        stopping=condition in ("ending", "lost"),
        running=has_word or silent or draw(st.booleans()),
        unreachable=silent,
        given_up=condition == "lost" and draw(st.booleans()),
    )


@st.composite
def registrations(draw: st.DrawFn, id_: str, now: float) -> Registration:
    cordoned = draw(st.sampled_from([False, False, True]))
    return Registration(
        KEY,
        id_,
        f"http://{id_.partition('.')[0]}",
        cordoned,
        running=draw(st.integers(0, 2)),
        resident=draw(st.integers(0, 3)),
        waiting=draw(st.sampled_from([0, 0, 1])),
        cordoned_since=draw(st.none() | times(now)) if cordoned else None,
    )


rollouts = st.tuples(st.integers(0, 2), st.integers(0, 2)).filter(any)
"""How many more there may be than wanted, and how many fewer."""
fleets = st.builds(
    lambda replicas, rollout: Fleet(KEY, replicas, NEW, max_surge=rollout[0], max_unavailable=rollout[1]),
    st.integers(0, 4),
    rollouts,
)


def decide(world: World, fleet: Fleet) -> list[Action]:
    return plan([fleet], world.seen(), POLICY)


def live(world: World) -> list[Instance]:
    return [instance for instance in world.instances.values() if not instance.stopping]


def check_bounds(world: World, fleet: Fleet, actions: list[Action]) -> None:
    """Never more than may be there because of a start, never fewer that serve because of a removal."""
    starts = sum(isinstance(action, Start) for action in actions)
    if starts:
        assert len(live(world)) + starts <= fleet.replicas + fleet.max_surge
    serving = world.serving()
    leaving = {action.place for action in actions if isinstance(action, Cordon | Stop | Kill)}
    left = sum(instance.place not in leaving for instance in serving)
    assert left >= min(len(serving), fleet.replicas - fleet.max_unavailable)


@unhurried
@given(worlds(), fleets)
def test_converges_from_any_state(world: World, fleet: Fleet) -> None:
    """Once turns end and gateways answer, exactly the wanted workers run, registered and uncordoned."""
    world.admin = True
    world.registered = {k: replace(w, waiting=0, cordoned_since=world.now) for k, w in world.registered.items()}
    quiet = 0
    while quiet < QUIET_ROUNDS:
        actions = decide(world, fleet)
        check_bounds(world, fleet, actions)
        for action in actions:
            world.carry_out(action)
        quiet = 0 if actions else quiet + 1
        assert world.boots < 130, "it starts workers without end"
        world.turns_end()
        world.pass_time()
    assert sorted(instance.place.revision for instance in live(world)) == [NEW] * fleet.replicas
    ids = {instance.ready.id for instance in live(world) if instance.ready}
    assert {id_ for id_, worker in world.registered.items() if not worker.cordoned} == ids
    assert set(world.registered) == ids
    assert all(instance.given_up for instance in world.instances.values() if instance.stopping)


@unhurried
@given(worlds(), fleets)
def test_actions_never_conflict(world: World, fleet: Fleet) -> None:
    """At most one action a place and at most one a worker id; starts only where nothing stands."""
    actions = decide(world, fleet)
    places = Counter(action.place for action in actions if not isinstance(action, Drop))
    doubled = {place for place, count in places.items() if count > 1}
    # A silent worker that is killed is cordoned too: the one is for its machine, the other for the gateways.
    assert all(world.at(place).unreachable for place in doubled)
    dropped = {action.id for action in actions if isinstance(action, Drop)}
    kept = {action.ready.id for action in actions if isinstance(action, Register | Uncordon)}
    assert not dropped & kept
    taken = {instance.place for instance in world.instances.values()}
    assert not taken & {action.place for action in actions if isinstance(action, Start)}


@unhurried
@given(worlds(), fleets)
def test_each_action_can_be_carried_out(world: World, fleet: Fleet) -> None:
    """The world refuses a second worker at a place, the drop of a live one, a cordon of one that is not registered."""
    actions = decide(world, fleet)
    check_bounds(world, fleet, actions)
    for action in actions:
        world.carry_out(action)


@unhurried
@given(worlds(), fleets)
def test_a_running_turn_is_left_in_peace_before_the_deadline(world: World, fleet: Fleet) -> None:
    for action in decide(world, fleet):
        if not isinstance(action, Stop):
            continue
        ready = world.at(action.place).ready
        worker = world.registered.get(ready.id) if ready else None
        if worker is not None:
            overdue = worker.cordoned_since is not None and world.now - worker.cordoned_since >= POLICY.drain_s
            assert worker.cordoned
            assert worker.running == 0 or overdue


@unhurried
@given(worlds(), fleets)
def test_whoever_was_told_to_end_is_left_to_it(world: World, fleet: Fleet) -> None:
    """By whomever: the only thing still to do is to let nothing new begin there."""
    stopping = {instance.place for instance in world.instances.values() if instance.stopping}
    for action in decide(world, fleet):
        if not isinstance(action, Drop) and action.place in stopping:
            assert isinstance(action, Cordon)


@unhurried
@given(worlds(), fleets)
def test_nothing_new_begins_where_the_end_was_ordered_or_nobody_sees(world: World, fleet: Fleet) -> None:
    world.admin = True
    closed = [instance for instance in world.instances.values() if instance.unreachable or instance.stopping]
    for action in decide(world, fleet):
        world.carry_out(action)
    for instance in closed:
        worker = world.registered.get(instance.ready.id) if instance.ready else None
        assert worker is None or worker.cordoned


@unhurried
@given(worlds(), fleets)
def test_without_gateways_it_only_starts(world: World, fleet: Fleet) -> None:
    world.admin = False
    actions = decide(world, fleet)
    assert all(isinstance(action, Start) for action in actions)
    assert len(live(world)) + len(actions) <= max(fleet.replicas, len(live(world)))


@unhurried
@given(worlds(), fleets, st.randoms(use_true_random=False))
def test_killed_at_any_step_it_converges(world: World, fleet: Fleet, random: Random) -> None:
    """Half of each plan is lost, as when the operator dies: the next plan goes on from there."""
    world.admin = True
    world.turns_end()
    for _ in range(ROUNDS):
        actions = decide(world, fleet)
        check_bounds(world, fleet, actions)
        for action in actions:
            if random.random() < 0.5:
                world.carry_out(action)
        world.pass_time()
    assert [instance.place.revision for instance in live(world)] == [NEW] * fleet.replicas


@unhurried
@given(worlds(), fleets, st.randoms(use_true_random=False))
def test_whatever_happens_meanwhile_it_converges(world: World, fleet: Fleet, random: Random) -> None:
    """Somebody deletes workers, machines fall silent and speak again, turns begin; then it is quiet."""
    world.admin = True
    for step in range(2 * ROUNDS):
        actions = decide(world, fleet)
        check_bounds(world, fleet, actions)
        for action in actions:
            world.carry_out(action)
        if step < ROUNDS:
            disturb(world, random)
        else:
            world.turns_end()
        world.pass_time()
    assert sorted(instance.place.revision for instance in live(world)) == [NEW] * fleet.replicas
    assert len(world.serving()) == fleet.replicas


def disturb(world: World, random: Random) -> None:
    for uid, instance in world.instances.items():
        chance = random.random()
        if chance < 0.05:
            world.instances[uid] = replace(instance, stopping=True)
        elif chance < 0.1:
            since = None if instance.unreachable else world.now
            world.instances[uid] = replace(instance, unreachable=since is not None, unhealthy_since=since)
        elif chance < 0.2 and instance.ready and instance.ready.id in world.registered:
            worker = world.registered[instance.ready.id]
            if not worker.cordoned:
                world.registered[worker.id] = replace(worker, running=random.randrange(3), waiting=random.randrange(2))
    if random.random() < 0.05 and world.instances:
        uid = random.choice(list(world.instances))
        instance = world.instances[uid]
        if instance.ready and not instance.stopping:
            # Its container has ended, and starts again.
            world.instances[uid] = replace(instance, ready=None, running=instance.unreachable, started_at=world.now)


def test_a_large_fleet_is_planned_in_a_moment() -> None:
    """Each look at a fleet plans it whole."""
    instances = tuple(
        Instance(Place(KEY, n, NEW), f"u{n}", 0.0, Ready(f"u{n}.boot", f"http://u{n}") if n % 2 else None)
        for n in range(4000)
    )
    registered = tuple(Registration(KEY, f"u{n}.boot", f"http://u{n}", False, 1, 0) for n in range(4000))
    began = time.process_time()
    plan([Fleet(KEY, 1000, NEW)], Seen(10.0, instances, registered, {}), POLICY)
    assert time.process_time() - began < 5.0
