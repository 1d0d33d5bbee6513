"""Complete lists and questions to the gateways: what they find, and what they must not do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from berth_operator.errors import ClusterRefused, ClusterUnavailable
from berth_operator.kube.store import Key, Listing
from kubekit.bodies import fleet, node, session
from kubekit.gateways import record
from kubekit.world import World, key


async def served(world: World) -> None:
    """A fleet of one worker, and alice who holds a slot there."""
    world.add_node()
    world.cluster.put("fleet", fleet())
    world.cluster.put("session", session())
    await world.rounds(2)
    world.run_pods()
    await world.until(lambda: world.status("session", "alice").get("phase") == "Bound")


def closed(world: World) -> list[str]:
    return [uid for _, _, uid in world.admin.asked("close_session")]


class TestClosing:
    """A conversation is closed for good: not for one list that came back short."""

    async def test_a_deletion_closes_it_at_once(self, world: World) -> None:
        await served(world)
        world.cluster.remove("session", "alice")
        await world.round()
        assert closed(world) == ["session-1"]

    async def test_one_short_list_closes_nothing(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        await served(world)
        whole = world.cluster.list

        async def short(kind: Any, namespace: str | None) -> Listing:
            listing = await whole(kind, namespace)
            return Listing(listing.version, []) if kind == "session" else listing

        monkeypatch.setattr(world.cluster, "list", short)
        await world.operator.upkeep.see_all()
        await world.rounds(5)
        monkeypatch.undo()
        await world.rounds(120)
        assert closed(world) == []
        assert world.status("session", "alice")["phase"] == "Bound"

    async def test_a_deletion_that_nobody_told_of_is_found_by_lists_a_minute_apart(self, world: World) -> None:
        await served(world)
        world.cluster.remove("session", "alice")
        world.cluster.lose_watch()
        await world.operator.upkeep.see_all()
        began = world.clock()
        await world.until(lambda: closed(world) == ["session-1"])
        assert world.clock() - began >= world.settings.times.absent_s

    async def test_so_is_one_that_happened_while_no_operator_ran(self, world: World) -> None:
        await served(world)
        world.cluster.remove("session", "alice")
        world.cluster.lose_watch()
        world.kill_operator()
        await world.rounds(30)
        assert closed(world) == []
        await world.rounds(70)
        assert closed(world)[0] == "session-1"
        assert key("alice") not in world.admin.known

    async def test_a_session_of_a_client_has_no_resource_to_miss(self, world: World) -> None:
        await served(world)
        world.admin.known[key("bob")] = record("bob", "http-1", origin="http")
        world.admin.note("session", "bob")
        await world.rounds(150)
        assert closed(world) == []

    async def test_while_a_list_fails_nothing_is_missing(self, world: World) -> None:
        await served(world)
        world.cluster.remove("session", "alice")
        world.cluster.lose_watch()
        world.cluster.breaks("list", times=1000)
        await world.rounds(200)
        assert closed(world) == []

    async def test_namespaces_of_others_are_left_alone(self) -> None:
        world = World(namespaces=("mine",))
        world.admin.known[key("alice")] = record()
        world.admin.register("w.boot", "http://w")
        await world.rounds(150)
        assert closed(world) == []
        assert world.admin.asked("drop_worker") == []


class TestLists:
    async def test_each_namespace_is_listed_by_itself_and_nodes_once(self) -> None:
        world = World(namespaces=("a", "b"))
        await world.operator.upkeep.see_all()
        assert world.cluster.made("list") == [
            ["fleet", "a"],
            ["fleet", "b"],
            ["session", "a"],
            ["session", "b"],
            ["pod", "a"],
            ["pod", "b"],
            ["node", None],
        ]

    async def test_nothing_is_looked_at_before_all_has_been_seen(self, world: World) -> None:
        """A list that fails halfway says nothing about the kinds behind it."""
        world.cluster.put("fleet", fleet())
        world.cluster.breaks("list", times=2)
        for _ in range(2):
            with pytest.raises(ClusterUnavailable):
                await world.operator.upkeep.see_all()
            assert not world.operator.upkeep.listed.is_set()
        await world.operator.upkeep.see_all()
        assert world.operator.upkeep.listed.is_set()

    async def test_without_the_right_to_see_nodes_it_works(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = world.cluster.list

        async def list_(kind: Any, namespace: str | None) -> Listing:
            if kind == "node":
                raise ClusterRefused("nodes is forbidden", status=403)
            return await whole(kind, namespace)

        monkeypatch.setattr(world.cluster, "list", list_)
        world.cluster.put("fleet", fleet())
        await world.rounds(2)
        world.run_pods()
        await world.until(lambda: world.condition("fleet", "tiny").get("reason") == "AllReady")
        assert world.operator.upkeep.hidden == {"node"}

    async def test_without_the_right_to_see_pods_it_does_not(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def refuse(kind: Any, _: str | None) -> Listing:
            raise ClusterRefused(f"{kind}s is forbidden", status=403)

        monkeypatch.setattr(world.cluster, "list", refuse)
        with pytest.raises(ClusterRefused, match="fleets is forbidden"):
            await asyncio.wait_for(world.operator.upkeep.resync(), 5)

    async def test_once_it_works_a_refusal_is_told_and_waited_out(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An API server that is being upgraded may refuse for a while: who is blind says so, and tries soon."""
        await world.operator.upkeep.see_all()
        naps: list[float] = []
        told: list[list[str]] = []

        async def sleep(seconds: float) -> None:
            naps.append(seconds)
            told.append([each for each in world.operator.waits() if "no complete list" in each])
            if len(naps) == 3:
                raise asyncio.CancelledError

        monkeypatch.setattr("berth_operator.kube.upkeep.asyncio.sleep", sleep)
        world.cluster.breaks("list", ClusterRefused("forbidden", status=403), times=2)
        with pytest.raises(asyncio.CancelledError):
            await world.operator.upkeep.resync()
        assert naps == [1.0, 1.0, world.settings.times.resync_s]
        assert told == [["no complete list: forbidden"]] * 2 + [[]]

    async def test_what_fails_again_and_again_is_said_once(
        self, world: World, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for words in ("it answered 503", "it answered 503", "it answered 429"):
            world.operator.upkeep._failed(ClusterUnavailable(words))
        assert capsys.readouterr().out.count("no complete list") == 2

    async def test_a_login_that_is_not_known_any_more_ends_it(self, world: World) -> None:
        await world.operator.upkeep.see_all()
        world.cluster.breaks("list", ClusterRefused("Unauthorized", status=401))
        with pytest.raises(ClusterRefused, match="Unauthorized"):
            await asyncio.wait_for(world.operator.upkeep.resync(), 5)

    async def test_what_is_known_of_the_dead_is_forgotten(self, world: World) -> None:
        await served(world)
        pod = world.cluster.all("pod")[0]["metadata"]
        words, hands, writer = world.fleets._words, world.fleets._hands, world.operator._session_writer
        hands.ending.add(pod["uid"])
        assert pod["uid"] in words.heard
        assert "session-1" in writer._wrote
        world.cluster.remove("pod", pod["name"])
        world.cluster.remove("session", "alice")
        await world.round()
        await world.operator.upkeep.see_all()
        assert pod["uid"] not in words.heard
        assert pod["uid"] not in hands.ending
        assert writer._wrote == {}


class TestQuestions:
    async def test_a_new_namespaces_session_is_asked_for_at_once(self, world: World) -> None:
        """Not when everything is looked at the next time."""
        await served(world)
        world.admin.register("w.boot", "http://w")
        body = session(uid="session-2")
        body["metadata"]["namespace"] = "new"
        world.cluster.put("session", body)
        await world.rounds(3)
        assert world.admin.asked("put_session")[-1][1] == "alice"
        made = world.cluster.get("session", "alice", "new")
        assert made is not None
        assert made["status"]["conditions"][0]["reason"] == "FleetNotFound"

    async def test_sessions_are_looked_at_when_gateways_come_back(self, world: World) -> None:
        await served(world)
        world.admin.down = True
        world.cluster.put("session", session("bob", uid="session-2"))
        await world.rounds(5)
        assert world.condition("session", "bob")["reason"] == "GatewayUnavailable"
        world.admin.down = False
        await world.round()
        assert key("bob") in world.admin.known

    async def test_a_fleet_is_looked_at_when_its_workers_move(self, world: World) -> None:
        await served(world)
        await world.rounds(3)
        queue = world.operator.queues.fleets
        await world.operator.upkeep.ask()
        assert list(queue._ready) == []
        id_ = next(iter(world.admin.workers_known))
        world.admin.register(id_, "http://10.0.0.1:8000", running=["alice"])
        await world.operator.upkeep.ask()
        assert list(queue._ready) == [key("tiny")]

    async def test_sessions_are_followed_where_there_are_resources_or_were_workers(self, world: World) -> None:
        world.cluster.put("session", session())
        body = session("carol", uid="session-3")
        body["metadata"]["namespace"] = "quiet"
        world.cluster.put("session", body)
        world.admin.register("w.boot", "http://w")
        await world.operator.upkeep.see_all()
        await world.operator.upkeep.ask()
        assert [namespace for _, namespace in world.admin.asked("sessions")] == ["quiet", "team"]

    async def test_what_was_seen_long_ago_is_not_current(self, world: World) -> None:
        assert not world.operator.upkeep.is_current()
        await world.operator.upkeep.see_all()
        assert world.operator.upkeep.is_current()
        world.clock.advance(world.settings.times.late_s + 1)
        assert not world.operator.upkeep.is_current()


async def test_a_silent_node_is_known_by_lists_alone(world: World) -> None:
    world.cluster.put("node", node())
    world.cluster.lose_watch()
    await world.operator.upkeep.see_all()
    assert world.store.get("node", Key("", "node-1")) is not None
