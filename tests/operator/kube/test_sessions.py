"""One look at a session: what the gateways are asked for, what people are told, and when that is written."""

from __future__ import annotations

from typing import Any

import pytest

from berth_api.admin import SessionPut
from berth_operator.errors import AdminRefused, AdminUnavailable
from kubekit.bodies import fleet, session
from kubekit.gateways import recovery
from kubekit.world import World, key


@pytest.fixture
async def served(world: World) -> World:
    """A fleet that serves."""
    await world.serve(replicas=1)
    return world


def puts(world: World) -> list[SessionPut]:
    return [put for _, _, put in world.admin.asked("put_session")]


def told(world: World, reason: str) -> list[str]:
    return [event["message"] for event in world.cluster.events.values() if event["reason"] == reason]


def reason(world: World, name: str = "alice") -> str:
    return str(world.condition("session", name).get("reason", ""))


class TestOrders:
    async def test_a_new_one_is_opened_with_a_slot(self, served: World) -> None:
        served.cluster.put(
            "session",
            session(
                idleTimeout="1h",
                hibernateAfter="10m",
                maxTokens=4096,
                onWorkerFailure="Abort",
                deletionPolicy="Retain",
            ),
        )
        await served.round()
        assert puts(served) == [
            SessionPut(
                uid="session-1",
                fleet="tiny",
                idle_timeout_s=3600.0,
                hibernate_after_s=600.0,
                max_tokens=4096,
                deletion_policy="Retain",
                on_worker_failure="abort",
                bind=True,
            )
        ]
        assert served.status("session", "alice")["phase"] == "Bound"

    async def test_what_is_as_it_should_be_is_asked_for_no_more(self, served: World) -> None:
        served.cluster.put("session", session(idleTimeout="1h30m0.25s"))
        await served.rounds(100)
        assert len(puts(served)) == 1
        assert len(served.admin.asked("session")) <= 1

    @pytest.mark.parametrize(
        ("changes", "asked"),
        [
            ({"idleTimeout": "2h"}, {"idle_timeout_s": 7200.0}),
            ({"hibernateAfter": "5m"}, {"hibernate_after_s": 300.0}),
            ({"maxTokens": 9}, {"max_tokens": 9}),
            ({"onWorkerFailure": "Abort"}, {"on_worker_failure": "abort"}),
            ({"deletionPolicy": "Retain"}, {"deletion_policy": "Retain"}),
            ({"suspend": True}, {"suspend": True}),
        ],
        ids=str,
    )
    async def test_a_change_is_passed_on_and_asks_for_no_slot(
        self, served: World, changes: dict[str, Any], asked: dict[str, Any]
    ) -> None:
        served.cluster.put("session", session())
        await served.round()
        served.cluster.put("session", session(**changes, status=served.status("session", "alice")))
        await served.rounds(3)
        _, put = puts(served)
        assert {name: getattr(put, name) for name in asked} == asked
        assert put.bind is False

    async def test_one_that_was_suspended_gets_a_slot_again(self, served: World) -> None:
        served.cluster.put("session", session(suspend=True))
        await served.round()
        assert puts(served)[-1].bind is False
        served.cluster.put("session", session(status=served.status("session", "alice")))
        await served.round()
        assert (puts(served)[-1].suspend, puts(served)[-1].bind) == (False, True)

    async def test_one_that_lost_its_worker_asks_for_another(self, served: World) -> None:
        served.cluster.put("session", session())
        await served.round()
        served.admin.change("alice", worker=None, stranded=True)
        await served.rounds(2)
        assert [put.bind for put in puts(served)] == [True, True]

    async def test_one_that_hibernates_is_let_sleep(self, served: World) -> None:
        served.cluster.put("session", session())
        await served.round()
        served.admin.change("alice", worker=None)
        await served.rounds(30)
        assert len(puts(served)) == 1
        assert reason(served) == "Hibernated"

    async def test_the_ledger_is_told_what_was_seen(self, served: World) -> None:
        """One that has less says so, instead of starting empty."""
        served.cluster.put("session", session(status={"history": {"turns": 4, "head": "abc"}}))
        await served.round()
        assert (puts(served)[0].turns, puts(served)[0].head) == (4, "abc")

    async def test_one_deleted_the_moment_it_was_to_be_retained_is(self, served: World) -> None:
        """The ledger has heard of neither; it is told of both, in this order."""
        served.cluster.put("session", session(maxTokens=9, idleTimeout="1h"))
        await served.round()
        served.cluster.put("session", session(maxTokens=9, idleTimeout="1h", deletionPolicy="Retain"))
        served.cluster.remove("session", "alice")
        await served.rounds(2)
        kept = served.admin.known[key("alice")]
        assert (kept.origin, kept.deletion_policy, kept.max_tokens, kept.idle_timeout_s) == ("http", "Retain", 9, 3600)
        assert puts(served)[-1].bind is False
        assert served.admin.closed == {}

    async def test_one_that_is_closed_already_is_not_brought_back(self, served: World) -> None:
        served.cluster.put("session", session())
        await served.round()
        served.admin.change("alice")
        served.cluster.put("session", session(deletionPolicy="Retain"))
        served.cluster.remove("session", "alice")
        await served.rounds(2)
        assert key("alice") not in served.admin.known
        assert served.admin.asked("close_session") == [("close_session", "alice", "session-1")]

    async def test_nor_is_what_has_its_name_by_then(self, served: World) -> None:
        served.cluster.put("session", session())
        await served.round()
        served.admin.change("alice", uid="session-2")
        served.cluster.put("session", session(deletionPolicy="Retain"))
        served.cluster.remove("session", "alice")
        await served.rounds(2)
        assert (served.admin.known[key("alice")].uid, served.admin.closed) == ("session-2", {})

    async def test_a_name_made_again_is_another_session(self, served: World) -> None:
        served.cluster.put("session", session())
        await served.round()
        served.cluster.remove("session", "alice")
        served.cluster.put("session", session(uid="session-2"))
        await served.rounds(2)
        assert [put.uid for put in puts(served)] == ["session-1", "session-2"]
        assert "session-1" in served.admin.closed
        assert served.admin.known[key("alice")].uid == "session-2"


class TestRefusals:
    """Each is a reason in the status, told once to whoever reads events."""

    async def test_the_name_is_a_clients(self, served: World) -> None:
        refusal = AdminRefused("there is one", type_="session_exists", status=409)
        served.admin.refusals["put_session"] = refusal
        served.cluster.put("session", session())
        await served.rounds(70)
        assert reason(served) == "NameConflict"
        assert told(served, "NameConflict") == ["a client made a session of this name: it belongs to the client"]
        assert len(served.cluster.made("create_event")) == 1

    async def test_until_the_client_lets_go_of_it(self, served: World) -> None:
        served.admin.refusals["put_session"] = AdminRefused("there is one", type_="session_exists", status=409)
        served.cluster.put("session", session())
        await served.rounds(5)
        del served.admin.refusals["put_session"]
        await served.until(lambda: reason(served) == "Bound")

    async def test_it_was_closed_by_the_clock_and_stays_so(self, served: World) -> None:
        served.cluster.put("session", session())
        await served.round()
        served.admin.closed["session-1"] = "idle_timeout"
        served.admin.change("alice")
        await served.rounds(100)
        assert reason(served) == "IdleTimeout"
        assert served.status("session", "alice")["phase"] == "Closed"
        assert len(told(served, "IdleTimeout")) == 1
        assert served.cluster.get("session", "alice") is not None

    async def test_there_is_no_such_fleet(self, world: World) -> None:
        world.cluster.put("session", session())
        await world.rounds(40)
        assert reason(world) == "FleetNotFound"
        assert told(world, "FleetNotFound") == ["there is no InferenceFleet tiny in namespace team"]
        await world.serve()
        await world.until(lambda: reason(world) == "Bound")

    async def test_a_fleet_without_a_worker_is_not_asked_for_again_and_again(self, world: World) -> None:
        """A thousand sessions may wait for it, for days."""
        world.cluster.put("fleet", fleet(replicas=0))
        world.cluster.put("session", session())
        await world.rounds(200)
        assert len(puts(world)) <= 4
        world.cluster.put("fleet", fleet(replicas=1, status=world.status("fleet", "tiny")))
        await world.rounds(2)
        world.run_pods()
        await world.until(lambda: reason(world) == "Bound")

    async def test_the_fleet_goes_and_comes_back(self, served: World) -> None:
        served.cluster.put("session", session())
        await served.rounds(12)
        body = served.cluster.get("fleet", "tiny")
        assert body is not None
        served.cluster.remove("fleet", "tiny")
        await served.rounds(12)
        assert reason(served) == "FleetNotFound"
        served.cluster.put("fleet", body)
        await served.until(lambda: reason(served) in ("Bound", "Hibernated"))

    async def test_a_token_that_gateways_do_not_know_flips_no_session(self, served: World) -> None:
        """That is for whoever runs the operator, not for whoever has sessions."""
        served.cluster.put("session", session())
        await served.rounds(12)
        served.admin.down = True
        served.cluster.put("session", session(maxTokens=9, status=served.status("session", "alice")))
        await served.rounds(30)
        assert reason(served) == "Bound"
        assert any(isinstance(error, AdminUnavailable) for error in served.failures)


class TestGatewaysAway:
    async def test_of_a_new_session_it_is_said(self, served: World) -> None:
        served.admin.down = True
        served.cluster.put("session", session())
        await served.rounds(40)
        assert reason(served) == "GatewayUnavailable"
        assert len(served.cluster.made("patch_status")) < 10
        served.admin.down = False
        await served.until(lambda: reason(served) == "Bound")

    async def test_of_one_of_a_namespace_that_was_never_listed_too(self, world: World) -> None:
        world.admin.down = True
        world.cluster.put("session", session())
        world.cluster.put("fleet", fleet())
        await world.rounds(3)
        assert reason(world) == "GatewayUnavailable"

    async def test_while_none_has_been_asked_nothing_is(self, world: World) -> None:
        world.store.heard("session", session(), deleted=False)
        assert await world.sessions.look(key("alice")) is None
        assert world.cluster.calls == []


class TestRecoveries:
    async def test_one_is_told_and_counted_once(self, served: World) -> None:
        served.cluster.put("session", session())
        await served.rounds(12)
        worker = next(iter(served.admin.workers_known))
        served.admin.change(
            "alice",
            worker=worker,
            recoveries=1,
            last_recovery=recovery("gone.boot", worker, served.clock() - 1),
        )
        await served.rounds(60)
        status = served.status("session", "alice")
        assert status["recoveries"] == 1
        assert status["lastRecovery"]["from"] == "gone"
        assert status["lastRecovery"]["reason"] == "WorkerLost"
        assert len(told(served, "Recovered")) == 1
        assert recovered(served) == 1

    async def test_those_that_come_faster_than_statuses_are_all_counted(self, served: World) -> None:
        served.cluster.put("session", session())
        await served.rounds(12)
        worker = next(iter(served.admin.workers_known))
        for count in range(1, 6):
            at = served.clock()
            served.admin.change("alice", worker=worker, recoveries=count, last_recovery=recovery("a.b", worker, at))
            await served.round()
        await served.rounds(15)
        assert served.status("session", "alice")["recoveries"] == 5
        assert recovered(served) == 5

    async def test_another_operator_counts_no_old_ones(self, served: World) -> None:
        served.cluster.put("session", session())
        await served.rounds(12)
        served.admin.change("alice", recoveries=2, last_recovery=recovery("a.b", "c.d", served.clock()))
        await served.rounds(12)
        served.kill_operator()
        await served.rounds(40)
        assert recovered(served) == 0
        assert len(told(served, "Recovered")) == 1


class TestStatus:
    async def test_a_fleet_that_has_not_been_looked_at_says_nothing_of_its_sessions(self, served: World) -> None:
        """Or every restart of the operator would have all of them unready for a moment."""
        served.cluster.put("session", session())
        await served.rounds(12)
        served.kill_operator()
        served.cluster.calls.clear()
        await served.operator.upkeep.see_all()
        await served.operator.upkeep.ask()
        await served.sessions.look(key("alice"))
        assert served.cluster.made("patch_status") == []

    async def test_turns_alone_are_written_every_five_minutes(self, served: World) -> None:
        served.cluster.put("session", session())
        await served.rounds(12)
        served.cluster.calls.clear()
        for turn in range(1, 700):
            served.admin.change("alice", turns=turn, head=f"{turn:x}")
            await served.round()
        assert len(served.cluster.made("patch_status")) <= 4

    async def test_a_resource_that_makes_no_sense_is_told_why(self, served: World) -> None:
        """As one of a newer version of the custom resources: nobody would know what it waits for."""
        served.cluster.put("session", session(idleTimeout="soon"))
        await served.rounds(3)
        assert puts(served) == []
        ready = served.condition("session", "alice")
        assert (ready["status"], ready["reason"]) == ("False", "InvalidSpec")
        assert ready["message"].startswith("spec.idleTimeout: ")
        served.cluster.put("session", session(idleTimeout="1h", status=served.status("session", "alice")))
        await served.until(lambda: reason(served) == "Bound")
        assert served.failures == []

    async def test_one_that_makes_no_sense_any_more_goes_on_as_it_was(self, served: World) -> None:
        served.cluster.put("session", session())
        await served.rounds(2)
        before = served.status("session", "alice")
        served.cluster.put("session", session(idleTimeout="soon", status=before))
        await served.rounds(15)
        assert served.status("session", "alice") == before
        assert served.admin.closed == {}

    async def test_a_status_that_makes_no_sense_is_written_anew(self, served: World) -> None:
        """As a newer operator may have left it."""
        served.cluster.put("session", session(status={"phase": "Wonderful"}))
        await served.rounds(2)
        assert served.status("session", "alice")["phase"] == "Bound"

    async def test_it_is_written_again_when_somebody_has_changed_the_object(self, served: World) -> None:
        served.cluster.put("session", session())
        served.cluster.tell(served.store)
        served.cluster.put("session", session(maxTokens=5))
        await served.operator.upkeep.ask()
        await served.sessions.look(key("alice"))
        assert served.status("session", "alice") == {}
        await served.rounds(2)
        assert reason(served) == "Bound"


def recovered(world: World) -> float:
    value = world.operator.metrics.registry.get_sample_value(
        "berth_operator_session_recoveries_total", {"namespace": "team", "fleet": "tiny", "reason": "worker_lost"}
    )
    return value or 0.0
