"""Looks at a fleet, against a cluster and gateways that do as ordered, fail, or are killed in between."""

from __future__ import annotations

from typing import Any

import pytest

from berth_operator.errors import ClusterRefused, ClusterUnavailable
from berth_operator.model import FleetKey
from kubekit.bodies import FLEET, ended, fleet, node, pod, session, waiting
from kubekit.world import World, key, pod_name

FIRST, SECOND = pod_name(0), pod_name(1)
FORBIDDEN = ClusterRefused("exceeded quota: pods", status=403)


def told(world: World, reason: str) -> list[str]:
    return [event["message"] for event in world.cluster.events.values() if event["reason"] == reason]


def writes(world: World) -> list[Any]:
    return [call for call in world.cluster.calls if call[0] != "list"]


class TestLife:
    async def test_as_many_as_wanted_no_more(self, world: World) -> None:
        await world.serve(replicas=3)
        assert len(world.pods()) == 3
        world.cluster.put("fleet", fleet(replicas=5))
        await world.round()
        assert len(world.pods()) == 5

    async def test_a_fleet_that_is_too_large_shrinks_in_two_phases(self, world: World) -> None:
        await world.serve(replicas=2)
        idle, busy = (world.worker_of(name) for name in world.pods())
        world.admin.register(busy, "http://10.0.0.2:8000", running=["alice"])
        world.cluster.put("fleet", fleet(replicas=1))
        await world.round()
        assert world.admin.workers_known[idle].cordoned
        assert len(world.pods()) == 2
        await world.rounds(2)
        assert [world.worker_of(name) for name in world.pods()] == [busy]
        world.end_pods()
        await world.rounds(2)
        assert set(world.admin.workers_known) == {busy}

    async def test_a_pod_that_somebody_deletes_is_replaced_at_once(self, world: World) -> None:
        await world.serve(replicas=1)
        gone = world.cluster.get("pod", FIRST)
        assert gone is not None
        await world.cluster.delete_pod("team", FIRST, uid=gone["metadata"]["uid"])
        await world.round()
        assert world.admin.workers_known[world.worker_of(FIRST)].cordoned
        assert world.pods() == [SECOND]
        assert told(world, "WorkerFailed") == []

    async def test_a_worker_that_ends_and_starts_again_is_another_worker(self, world: World) -> None:
        await world.serve(replicas=1)
        body = world.cluster.get("pod", FIRST)
        assert body is not None
        old = world.worker_of(FIRST)
        world.run_pod(body, boot="again")
        await world.rounds(3)
        assert world.worker_of(FIRST) == f"{body['metadata']['uid']}.again"
        assert old not in world.admin.workers_known
        assert world.pods() == [FIRST]

    async def test_what_is_left_of_a_fleet_goes_with_it(self, world: World) -> None:
        await world.serve(replicas=2)
        world.cluster.remove("fleet", "tiny")
        await world.round()
        assert all(worker.cordoned for worker in world.admin.workers_known.values())
        for name in world.pods():  # as the garbage collector has it
            world.cluster.remove("pod", name)
        await world.rounds(2)
        assert world.admin.workers_known == {}
        assert world.fleets._known == {}
        before = len(world.cluster.calls)
        await world.rounds(25)
        assert writes(world)[before:] == []

    async def test_a_fleet_made_again_leaves_the_old_ones_pods_to_their_end(self, world: World) -> None:
        await world.serve(replicas=1)
        world.cluster.remove("fleet", "tiny")
        world.cluster.put("fleet", fleet(uid="fleet-2", replicas=1))
        await world.rounds(3)
        assert world.pods() == [FIRST, SECOND]
        assert world.admin.workers_known[world.worker_of(FIRST)].cordoned
        assert world.cluster.made("delete_pod") == []

    async def test_registered_workers_of_no_fleet_are_dropped(self, world: World) -> None:
        world.admin.register("lost.boot", "http://10.9.9.9:8000")
        await world.rounds(2)
        assert world.admin.workers_known == {}


class TestRollout:
    async def test_a_new_revision_replaces_the_old_within_its_bounds(self, world: World) -> None:
        await world.serve(replicas=2)
        world.cluster.put("fleet", fleet(replicas=2, slots=8))
        for _ in range(40):
            await world.round()
            assert len(world.pods()) <= 3
            serving = [each for each in world.admin.workers_known.values() if not each.cordoned]
            assert len(serving) >= 2
            world.run_pods()
            world.end_pods()
        status = world.status("fleet", "tiny")
        assert sorted(world.pods()) == [f"tiny-{status['revision']}-0", f"tiny-{status['revision']}-1"]
        assert (status["updatedReplicas"], status["slots"]) == (2, 16)

    async def test_what_a_fleets_people_change_often_replaces_nothing(self, world: World) -> None:
        await world.serve(replicas=1)
        world.cluster.put("fleet", fleet(replicas=1, drainDeadline="5m", rollout={"maxSurge": 2}))
        await world.rounds(3)
        assert world.pods() == [FIRST]


class TestFailingPods:
    async def test_one_that_is_over_is_buried_told_of_and_replaced(self, world: World) -> None:
        await world.serve(replicas=1)
        body = world.cluster.get("pod", FIRST)
        assert body is not None
        world.cluster.put("pod", body | {"status": ended()["status"]})
        await world.rounds(2)
        (message,) = told(world, "WorkerFailed")
        assert message == f"pod {FIRST} ({body['metadata']['uid']}) is replaced. Evicted: The node was low on memory."
        again = world.cluster.get("pod", FIRST)
        assert again is not None
        assert again["metadata"]["uid"] != body["metadata"]["uid"]
        assert world.fleets._hands.restarts

    async def test_one_that_was_told_to_end_has_not_failed(self, world: World) -> None:
        """Its machine says that its phase is Failed before its object goes."""
        await world.serve(replicas=1)
        body = world.cluster.get("pod", FIRST)
        assert body is not None
        await world.cluster.delete_pod("team", FIRST, uid=body["metadata"]["uid"])
        body = world.cluster.get("pod", FIRST)
        assert body is not None
        world.cluster.put("pod", body | {"status": {"phase": "Failed"}})
        await world.rounds(3)
        assert told(world, "WorkerFailed") == []
        assert world.fleets._hands.restarts == {}
        assert world.pods() == [FIRST]

    async def test_one_that_fails_again_and_again_is_given_pauses(self, world: World) -> None:
        world.add_node()
        world.cluster.put("fleet", fleet())
        for _ in range(60):
            await world.round()
            for body in world.cluster.all("pod"):
                world.cluster.put("pod", body | {"status": {"phase": "Failed", "reason": "UnexpectedAdmissionError"}})
        assert 12 <= len(world.cluster.made("create_pod")) <= 18

    async def test_a_place_that_served_starts_with_a_clean_slate(self, world: World) -> None:
        await world.serve(replicas=1)
        body = world.cluster.get("pod", FIRST)
        assert body is not None
        world.cluster.put("pod", body | {"status": ended()["status"]})
        await world.rounds(2)
        world.run_pods()
        await world.rounds(3)
        assert world.fleets._hands.restarts == {}


class TestRefusedPods:
    """What the API server will not have is told, and not asked for without end."""

    async def test_the_fleet_says_why(self, world: World) -> None:
        world.cluster.put("fleet", fleet(replicas=3))
        world.cluster.breaks("create_pod", FORBIDDEN, times=1000)
        await world.rounds(3)
        stalled = world.condition("fleet", "tiny", "Stalled")
        assert (stalled["reason"], stalled["message"]) == ("PodRefused", "exceeded quota: pods")

    async def test_what_one_is_refused_is_not_asked_for_by_all(self, world: World) -> None:
        world.cluster.put("fleet", fleet(replicas=100))
        world.cluster.breaks("create_pod", FORBIDDEN, times=1000)
        await world.rounds(60)
        assert len(world.cluster.made("create_pod")) <= 20

    async def test_many_come_in_few_steps_where_they_are_taken(self, world: World) -> None:
        world.cluster.put("fleet", fleet(replicas=100))
        await world.round()
        assert len(world.pods()) == 100

    async def test_part_of_a_quota_is_used(self, world: World) -> None:
        world.cluster.put("fleet", fleet(replicas=3))
        world.cluster.breaks("create_pod", ClusterRefused("later", status=403))
        await world.rounds(3)
        assert len(world.pods()) == 3
        assert world.fleets._hands.refused == {}

    async def test_another_revision_makes_it_moot(self, world: World) -> None:
        """Whoever has mended the spec must not read the old complaint."""
        world.cluster.put("fleet", fleet(replicas=1))
        world.cluster.breaks("create_pod", FORBIDDEN, times=100)
        await world.round()
        assert world.condition("fleet", "tiny", "Stalled")
        world.cluster.mended()
        world.cluster.put("fleet", fleet(replicas=1, slots=2, status=world.status("fleet", "tiny")))
        await world.rounds(2)
        assert world.condition("fleet", "tiny", "Stalled") == {}
        assert world.fleets._hands.refused == {}
        assert world.fleets._hands.restarts == {}

    async def test_so_does_wanting_fewer(self, world: World) -> None:
        await world.serve(replicas=1)
        world.cluster.breaks("create_pod", FORBIDDEN, times=1000)
        world.cluster.put("fleet", fleet(replicas=2, status=world.status("fleet", "tiny")))
        await world.rounds(3)
        assert world.condition("fleet", "tiny")["reason"] == "PodRefused"
        world.cluster.put("fleet", fleet(replicas=1, status=world.status("fleet", "tiny")))
        await world.rounds(2)
        assert world.condition("fleet", "tiny")["reason"] == "AllReady"

    async def test_a_name_that_another_pod_has_is_told(self, world: World) -> None:
        stranger = pod(uid="stranger")
        stranger["metadata"] |= {"name": FIRST, "labels": {}}
        world.cluster.put("pod", stranger)
        world.cluster.put("fleet", fleet(replicas=1))
        await world.rounds(60)
        stalled = world.condition("fleet", "tiny", "Stalled")
        assert stalled["message"] == f"there is a pod {FIRST} that is not of this fleet"
        assert len(world.cluster.made("create_pod")) <= 18

    async def test_one_that_only_the_watch_has_not_told_of_is_ours(self, world: World) -> None:
        """As after a create whose answer was lost."""
        world.cluster.put("fleet", fleet(replicas=1))
        await world.round()
        world.kill_operator()
        world.cluster.tell(world.store)
        world.store._objects["pod"].clear()
        await world.fleets.look(key("tiny"))
        assert world.fleets._hands.refused == {}

    async def test_while_pods_are_refused_gateways_hear_all_the_same(self, world: World) -> None:
        """A webhook that fails must not keep a dead worker registered."""
        await world.serve(replicas=1)
        world.cluster.breaks("create_pod", ClusterUnavailable("failed calling webhook"), times=1000)
        world.cluster.remove("pod", FIRST)
        await world.rounds(3)
        assert world.admin.workers_known == {}
        assert world.condition("fleet", "tiny", "Stalled")["message"] == "failed calling webhook"


class TestApiServerErrors:
    async def test_a_deletion_that_failed_is_ordered_again(self, world: World) -> None:
        await world.serve(replicas=1)
        world.cluster.put("fleet", fleet(replicas=0))
        world.cluster.breaks("delete_pod", times=2)
        await world.rounds(10)
        assert world.pods() == []

    async def test_a_status_that_failed_is_written_again(self, world: World) -> None:
        world.cluster.put("fleet", fleet())
        world.cluster.breaks("patch_status", times=2)
        await world.rounds(4)
        assert world.status("fleet", "tiny")["desiredReplicas"] == 1

    async def test_an_event_that_is_refused_keeps_nobody_from_anything(self, world: World) -> None:
        await world.serve(replicas=1)
        world.cluster.breaks("create_event", ClusterRefused("events is forbidden", status=403), times=100)
        body = world.cluster.get("pod", FIRST)
        assert body is not None
        world.cluster.put("pod", body | {"status": ended()["status"]})
        await world.rounds(2)
        world.run_pods()
        await world.until(lambda: world.condition("fleet", "tiny")["reason"] == "AllReady")
        assert world.failures == []


class TestGatewaysAway:
    """Fail static: the dead are replaced, nothing else is touched."""

    async def test_nothing_shrinks_and_nothing_rolls(self, world: World) -> None:
        await world.serve(replicas=2)
        world.admin.down = True
        await world.round()
        world.cluster.put("fleet", fleet(replicas=1, slots=2, status=world.status("fleet", "tiny")))
        before = world.pods()
        await world.rounds(200)
        assert world.pods() == before
        assert world.condition("fleet", "tiny", "Reconciling")["reason"] == "GatewayUnavailable"

    async def test_the_dead_are_replaced(self, world: World) -> None:
        await world.serve(replicas=2)
        world.admin.down = True
        world.cluster.remove("pod", FIRST)
        await world.rounds(2)
        assert len(world.pods()) == 2

    async def test_sessions_hear_nothing_of_it(self, world: World) -> None:
        await world.serve(replicas=1)
        world.cluster.put("session", session())
        await world.rounds(15)
        before = world.status("session", "alice")
        world.admin.down = True
        await world.rounds(60)
        assert world.status("session", "alice") == before


class TestOldEyes:
    """Whoever sees the cluster as it was must not tell the gateways about it."""

    async def test_a_worker_of_a_pod_that_is_not_known_yet_is_not_dropped(self, world: World) -> None:
        """Another operator has made it, and our watch is dead."""
        await world.serve(replicas=1)
        world.cluster.put("fleet", fleet(replicas=2))
        await world.round()
        world.run_pods()
        other = next(name for name in world.pods() if name != FIRST)
        del world.store._objects["pod"][key(other)]
        world.cluster.lose_watch()
        body = world.cluster.get("pod", other)
        assert body is not None
        world.admin.register(f"{body['metadata']['uid']}.boot", "http://10.0.0.2:8000")
        await world.rounds(3, watch=False)
        assert world.admin.asked("drop_worker") == []
        assert world.worker_of(other)

    async def test_nobody_is_dropped_while_the_api_server_cannot_say(self, world: World) -> None:
        await world.serve(replicas=1)
        world.admin.register("unknown.boot", "http://10.9.9.9:8000")
        world.cluster.breaks("list", times=1000)
        await world.rounds(5)
        assert "unknown.boot" in world.admin.workers_known
        world.cluster.mended()
        await world.rounds(2)
        assert "unknown.boot" not in world.admin.workers_known

    async def test_an_operator_that_is_cut_off_from_the_api_server_leaves_all_as_it_is(self, world: World) -> None:
        """Meanwhile another one works, with another spec."""
        await world.serve(replicas=2)
        world.cluster.breaks("list", times=10_000)
        await world.rounds(int(world.settings.times.late_s) + 40, watch=False)
        id_ = world.worker_of(FIRST)
        world.admin.register(id_, "http://10.0.0.1:8000", cordoned=True)
        world.admin.calls.clear()
        await world.rounds(40, watch=False)
        assert world.admin.asked("put_worker", "drop_worker", "register_worker") == []


class TestSilentNodes:
    async def test_its_workers_are_cordoned_replaced_and_given_up(self, world: World) -> None:
        await world.serve(replicas=1)
        world.add_node("node-2")
        lost = world.worker_of(FIRST)
        world.cluster.put("node", node(ready="Unknown", since=world.clock.stamp()))
        await world.round()
        assert world.admin.workers_known[lost].cordoned
        assert world.pods() == [FIRST]
        await world.rounds(62)
        assert world.pods() == [SECOND]
        assert lost in world.admin.workers_known
        await world.rounds(30 + 135 + 30)
        assert lost not in world.admin.workers_known

    async def test_one_that_comes_back_serves_on(self, world: World) -> None:
        await world.serve(replicas=1)
        world.add_node("node-2")
        world.cluster.put("node", node(ready="Unknown", since=world.clock.stamp()))
        await world.rounds(20)
        world.cluster.put("node", node())
        await world.rounds(3)
        assert world.pods() == [FIRST]
        assert not world.admin.workers_known[world.worker_of(FIRST)].cordoned

    async def test_where_no_node_speaks_the_cluster_is_cut_off_and_nobody_is_dead(self, world: World) -> None:
        await world.serve(replicas=2)
        world.cluster.put("node", node(ready="Unknown", since=world.clock.stamp()))
        for body in world.cluster.all("pod"):
            for each in body["status"]["conditions"]:
                if each["type"] == "Ready":
                    each |= {"status": "False", "lastTransitionTime": world.clock.stamp()}
            world.cluster.put("pod", body)
        await world.rounds(300)
        assert world.cluster.made("delete_pod") == []
        assert not any(worker.cordoned for worker in world.admin.workers_known.values())


class TestRestart:
    """An operator that is killed at any step, and another that knows nothing."""

    async def test_at_rest_it_changes_nothing(self, world: World) -> None:
        await world.serve(replicas=2)
        world.cluster.put("session", session())
        await world.rounds(15)
        world.kill_operator()
        before = len(world.cluster.calls)
        await world.rounds(40)
        assert [call for call in world.cluster.calls[before:] if call[0] != "list"] == []
        assert world.admin.asked("drop_worker") == []

    async def test_a_worker_that_cannot_be_asked_just_then_serves_on(self, world: World) -> None:
        """It may be busy. It is neither killed nor forgotten, and the fleet is as ready as it was."""
        await world.serve(replicas=1)
        world.clock.advance(10_000)
        world.admin.answers.clear()
        world.kill_operator()
        before = len(world.cluster.calls)
        await world.rounds(60)
        assert [call for call in world.cluster.calls[before:] if call[0] != "list"] == []
        assert world.worker_of(FIRST)

    async def test_what_was_cordoned_stays_so(self, world: World) -> None:
        await world.serve(replicas=2)
        id_ = world.worker_of(FIRST)
        world.admin.register(id_, "http://10.0.0.1:8000", running=["alice"], cordoned=True)
        world.cluster.put("fleet", fleet(replicas=1, status=world.status("fleet", "tiny")))
        world.kill_operator()
        world.admin.calls.clear()
        await world.rounds(3)
        cordons = [(call[1], call[2]) for call in world.admin.asked("register_worker", "put_worker")]
        assert (id_.partition(".")[0], True) in cordons
        assert world.admin.workers_known[id_].cordoned

    async def test_one_that_was_told_to_end_is_not_opened_again(self, world: World) -> None:
        await world.serve(replicas=1)
        body = world.cluster.get("pod", FIRST)
        assert body is not None
        await world.cluster.delete_pod("team", FIRST, uid=body["metadata"]["uid"])
        world.admin.workers_known.clear()
        world.kill_operator()
        await world.rounds(3)
        assert world.admin.workers_known[world.worker_of(FIRST)].cordoned
        assert ("register_worker", "uid-1", False) not in world.admin.calls[-20:]

    @pytest.mark.parametrize("calls", [*range(40)])
    async def test_killed_between_any_two_calls_it_converges(self, world: World, calls: int) -> None:
        """Two workers come, then one of them goes and both are replaced by a newer revision."""
        await world.serve(replicas=2)
        world.cluster.put("session", session())
        world.cluster.put("fleet", fleet(replicas=1, slots=8, status=world.status("fleet", "tiny")))
        world.clock.calls_left = calls
        for _ in range(40):
            await world.round()
            world.run_pods()
            world.end_pods()
        assert len(world.pods()) == 1
        assert world.condition("fleet", "tiny")["reason"] == "AllReady"
        assert world.status("fleet", "tiny")["slots"] == 8
        assert world.status("session", "alice")["phase"] in ("Bound", "Hibernated")
        assert list(world.admin.workers_known) == [world.worker_of(world.pods()[0])]


class TestTwo:
    """Two operators at once, each of which hears what the other does."""

    async def test_they_say_the_same_whatever_the_order_in_which_they_have_heard_of_it(self, world: World) -> None:
        world.add_node()
        world.cluster.put("fleet", fleet(replicas=2))
        await world.rounds(2)
        for name, words in ((FIRST, "ErrImagePull"), (SECOND, "ImagePullBackOff")):
            body = world.cluster.get("pod", name)
            assert body is not None
            world.cluster.put("pod", body | {"status": waiting(words, name)["status"]})
        await world.rounds(3)
        said = world.condition("fleet", "tiny")["message"]
        other = World()
        other.clock, other.cluster, other.admin = world.clock, world.cluster, world.admin
        other.kill_operator()
        pods = world.cluster.all("pod")
        for body in reversed(pods):
            other.store.heard("pod", body, deleted=False)
        await other.rounds(5)
        assert world.condition("fleet", "tiny")["message"] == said

    async def test_where_they_differ_it_is_written_once_a_second(self, world: World) -> None:
        await world.serve(replicas=1)
        before = len(world.cluster.made("patch_status"))
        for _ in range(50):
            body = world.cluster.get("fleet", "tiny")
            assert body is not None
            world.cluster.put("fleet", body | {"status": body["status"] | {"desiredReplicas": 9}})
            world.cluster.tell(world.store)
            await world.fleets.look(key("tiny"))
        assert len(world.cluster.made("patch_status")) - before <= 1


class TestInvalid:
    async def test_a_spec_that_makes_no_sense_leaves_workers_as_they_are(self, world: World) -> None:
        await world.serve(replicas=1)
        world.cluster.put("fleet", fleet(replicas=-1, slots="many", status=world.status("fleet", "tiny")))
        await world.rounds(40)
        stalled = world.condition("fleet", "tiny", "Stalled")
        assert stalled["reason"] == "InvalidSpec"
        assert stalled["message"].startswith("spec.slots: ")
        assert world.pods() == [FIRST]
        assert world.worker_of(FIRST)
        assert len(world.cluster.made("patch_status")) < 12

    async def test_not_even_its_status_has_to_make_sense(self, world: World) -> None:
        world.cluster.put("fleet", fleet(slots="many", status={"phase": "Wonderful"}))
        await world.rounds(2)
        assert world.condition("fleet", "tiny")["reason"] == "InvalidSpec"
        assert world.failures == []

    async def test_a_status_that_makes_no_sense_is_written_anew(self, world: World) -> None:
        await world.serve(replicas=1)
        world.cluster.put("fleet", fleet(replicas=1, status={"phase": "Wonderful"}))
        await world.rounds(3)
        assert world.condition("fleet", "tiny")["reason"] == "AllReady"


class TestWords:
    """What sessions hear of their fleet."""

    async def test_of_no_fleet(self, world: World) -> None:
        word = world.fleets.word(FleetKey("team", "none"))
        assert (word.exists, word.usable) == (False, 0)

    async def test_of_one_that_has_not_been_looked_at(self, world: World) -> None:
        world.store.heard("fleet", fleet(), deleted=False)
        assert world.fleets.word(FLEET) is None

    async def test_its_sessions_are_looked_at_when_it_serves_or_does_not(self, world: World) -> None:
        world.cluster.put("session", session())
        await world.serve(replicas=2)
        assert world.fleets.word(FLEET).usable == 2
        sessions = world.operator.queues.sessions
        assert list(sessions._ready) == []
        for name in world.pods():
            world.cluster.remove("pod", name)
        world.cluster.tell(world.store)
        world.cluster.breaks("create_pod", FORBIDDEN, times=10)
        await world.fleets.look(key("tiny"))
        assert list(sessions._ready) == [key("alice")]
        assert world.fleets.word(FLEET).reason == "PodRefused"
