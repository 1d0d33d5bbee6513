"""The plan's decisions, one situation at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest

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
NOW = 1000.0
POLICY = Policy()


def place(ordinal: int) -> Place:
    return Place(KEY, ordinal)


def word(ordinal: int) -> Ready:
    return Ready(id=f"uid{ordinal}.boot", url=f"http://127.0.0.1:{9000 + ordinal}")


def serving(ordinal: int) -> Instance:
    return Instance(place(ordinal), uid=f"uid{ordinal}", started_at=NOW - 100, ready=word(ordinal))


def starting(ordinal: int) -> Instance:
    return replace(serving(ordinal), ready=None)


def registered(ordinal: int, *, running: int = 0, resident: int = 0, idle_since: float | None = None) -> Registration:
    ready = word(ordinal)
    return Registration(KEY, ready.id, ready.url, False, running, resident, idle_since=idle_since)


def cordoned(ordinal: int, since: float = NOW, *, running: int = 0) -> Registration:
    return replace(registered(ordinal, running=running), cordoned=True, cordoned_since=since)


def decide(
    replicas: int,
    instances: list[Instance],
    workers: list[Registration] | None,
    restarts: dict[Place, Restarts] | None = None,
) -> list[Action]:
    known = None if workers is None else tuple(workers)
    return plan([Fleet(KEY, replicas)], Seen(NOW, tuple(instances), known, restarts or {}), POLICY)


def test_an_empty_machine_starts_all() -> None:
    assert decide(2, [], []) == [Start(place(0)), Start(place(1))]


def test_a_fleet_as_wanted_is_left_alone() -> None:
    assert decide(2, [serving(0), serving(1)], [registered(0), registered(1)]) == []


def test_a_worker_is_registered_by_its_own_word_only() -> None:
    assert decide(2, [serving(0), starting(1)], []) == [Register(place(0), word(0))]


def test_a_worker_that_moved_is_registered_again() -> None:
    moved = replace(registered(0), url="http://127.0.0.1:1")
    assert decide(1, [serving(0)], [moved]) == [Register(place(0), word(0))]


def test_a_dead_worker_is_replaced_at_its_place_and_dropped() -> None:
    assert decide(2, [serving(1)], [registered(0), registered(1)]) == [Start(place(0)), Drop(word(0).id)]


def test_a_worker_of_an_earlier_fleet_is_dropped() -> None:
    foreign = replace(registered(7), fleet=FleetKey("other", "gone"))
    assert decide(1, [serving(0)], [registered(0), foreign]) == [Drop(word(7).id)]


def test_a_worker_that_has_not_given_its_word_again_is_not_dropped() -> None:
    assert decide(1, [starting(0)], [registered(0)]) == []


def test_instances_of_an_unwanted_fleet_are_removed() -> None:
    seen = Seen(NOW, (serving(0),), (registered(0),), {})
    assert plan([], seen, POLICY) == [Cordon(place(0), word(0))]


def test_a_fleet_wanted_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="default/default"):
        plan([Fleet(KEY, 1), Fleet(KEY, 2)], Seen(NOW, (), (), {}), POLICY)


def test_a_stopping_worker_keeps_its_place_but_does_not_count() -> None:
    assert decide(1, [replace(serving(0), stopping=True)], [cordoned(0)]) == [Start(place(1))]


def test_a_worker_that_somebody_else_told_to_stop_is_cordoned() -> None:
    assert decide(0, [replace(serving(0), stopping=True)], [registered(0)]) == [Cordon(place(0), word(0))]


def test_a_worker_that_cannot_confirm_its_end_is_dropped_when_given_up() -> None:
    gone = replace(serving(0), stopping=True, given_up=True)
    assert decide(0, [gone], [cordoned(0)]) == [Drop(word(0).id)]


def test_a_worker_that_starts_again_is_dropped_under_its_old_id() -> None:
    again = replace(starting(0), running=False)
    assert decide(1, [again], [registered(0)]) == [Drop(word(0).id)]


class TestUnreachable:
    """Its machine is silent, while it may serve all the same."""

    def test_nothing_new_begins_there_and_it_is_not_given_up_at_once(self) -> None:
        lost = replace(serving(0), unreachable=True, unhealthy_since=NOW)
        assert decide(1, [lost], [registered(0)]) == [Cordon(place(0), word(0))]
        assert decide(1, [lost], [cordoned(0)]) == []

    def test_not_even_for_turns_that_wait(self) -> None:
        lost = replace(serving(0), unreachable=True, unhealthy_since=NOW)
        assert decide(0, [lost], [replace(cordoned(0), waiting=1)]) == [Stop(place(0))]

    def test_it_comes_back_when_its_machine_does(self) -> None:
        assert decide(1, [serving(0)], [cordoned(0)]) == [Uncordon(place(0), word(0))]

    def test_it_is_replaced_at_the_limit(self) -> None:
        lost = replace(serving(0), unreachable=True, unhealthy_since=NOW - POLICY.liveness_s)
        assert decide(1, [lost], [cordoned(0)]) == [Kill(place(0))]


class TestLiveness:
    def test_a_silent_worker_is_killed_at_the_limit(self) -> None:
        silent = replace(serving(0), unhealthy_since=NOW - POLICY.liveness_s)
        assert decide(1, [silent], [registered(0)]) == [Kill(place(0))]

    def test_but_not_before_it(self) -> None:
        silent = replace(serving(0), unhealthy_since=NOW - POLICY.liveness_s + 1)
        assert decide(1, [silent], [registered(0)]) == []

    def test_a_worker_that_never_gets_ready_is_killed(self) -> None:
        assert decide(1, [replace(starting(0), started_at=NOW - POLICY.start_s)], []) == [Kill(place(0))]

    def test_its_death_leaves_no_surplus_to_remove(self) -> None:
        silent = replace(serving(0), unhealthy_since=NOW - POLICY.liveness_s)
        instances = [silent, serving(1), serving(2)]
        assert decide(2, instances, [registered(0), registered(1), registered(2)]) == [Kill(place(0))]


class TestBackoff:
    def test_the_first_restart_is_at_once(self) -> None:
        assert decide(1, [], [], {place(0): Restarts().failed(NOW)}) == [Start(place(0))]

    def test_later_ones_wait(self) -> None:
        assert decide(1, [], [], {place(0): Restarts(2, NOW)}) == []
        assert decide(1, [], [], {place(0): Restarts(2, NOW - 0.5)}) == [Start(place(0))]

    def test_a_waiting_place_is_not_passed_over(self) -> None:
        assert decide(2, [serving(0)], [registered(0)], {place(1): Restarts(9, NOW)}) == []

    @pytest.mark.parametrize(
        ("failures", "wait"), [(0, 0), (1, 0), (2, 0.5), (3, 1), (4, 2), (5, 4), (6, 5), (9999, 5)]
    )
    def test_waits_double_up_to_the_limit(self, failures: int, wait: float) -> None:
        assert POLICY.backoff.wait(failures) == wait


class TestRemoval:
    def test_comes_in_two_phases(self) -> None:
        instances = [serving(0), serving(1)]
        assert decide(1, instances, [registered(0), registered(1)]) == [Cordon(place(1), word(1))]
        assert decide(1, instances, [registered(0), cordoned(1, running=1)]) == []
        assert decide(1, instances, [registered(0), cordoned(1)]) == [Stop(place(1))]

    def test_the_deadline_ends_the_wait(self) -> None:
        late = cordoned(1, NOW - POLICY.drain_s, running=1)
        assert decide(1, [serving(0), serving(1)], [registered(0), late]) == [Stop(place(1))]

    def test_the_emptiest_goes(self) -> None:
        workers = [registered(0, resident=1), registered(1, running=1), registered(2, resident=3)]
        assert decide(2, [serving(n) for n in range(3)], workers) == [Cordon(place(0), word(0))]

    def test_among_equals_the_longest_idle_goes(self) -> None:
        workers = [registered(0, idle_since=5.0), registered(1, idle_since=2.0), registered(2)]
        assert decide(2, [serving(n) for n in range(3)], workers) == [Cordon(place(1), word(1))]

    def test_one_that_does_not_serve_yet_goes_first(self) -> None:
        assert decide(1, [serving(0), starting(1)], [registered(0)]) == [Stop(place(1))]

    def test_a_silent_one_goes_before_a_healthy_one(self) -> None:
        silent = replace(serving(0), unhealthy_since=NOW - 1)
        workers = [registered(0, running=1), registered(1)]
        assert decide(1, [silent, serving(1)], workers) == [Cordon(place(0), word(0))]

    def test_a_wish_taken_back_uncordons(self) -> None:
        assert decide(1, [serving(0)], [cordoned(0)]) == [Uncordon(place(0), word(0))]

    def test_waiting_turns_hold_it_up(self) -> None:
        instances = [serving(0), serving(1)]
        waiting = [replace(registered(n), waiting=1) for n in range(2)]
        assert decide(1, instances, waiting) == []
        marked = [waiting[0], replace(waiting[1], cordoned=True, cordoned_since=NOW)]
        assert decide(1, instances, marked) == [Uncordon(place(1), word(1))]

    def test_but_not_where_nobody_is_to_serve(self) -> None:
        """Turns that keep coming would be waiting each time, and the deadline would begin anew each time."""
        waiting = replace(registered(0), waiting=2)
        assert decide(0, [serving(0)], [waiting]) == [Cordon(place(0), word(0))]
        marked = replace(waiting, cordoned=True, cordoned_since=NOW)
        assert decide(0, [serving(0)], [marked]) == [Stop(place(0))]
        assert decide(0, [serving(0)], [replace(marked, running=1)]) == []


class TestFailStatic:
    def test_the_dead_are_replaced(self) -> None:
        assert decide(2, [serving(1)], None) == [Start(place(0))]

    def test_nothing_is_stopped(self) -> None:
        silent = replace(serving(0), unhealthy_since=NOW - 10 * POLICY.liveness_s)
        assert decide(1, [silent, serving(1), starting(2)], None) == []
