"""What a session's status says: every reason, and what stays from before."""

from __future__ import annotations

from typing import Any

import pytest

from berth_api.admin import AdminSession
from berth_api.crd import History, LastRecovery, SessionStatus
from berth_operator.kube.conditions import timestamp
from berth_operator.kube.session_status import UNANSWERED, FleetWord, Refusal, condition, judge, reason
from kubekit.gateways import record, recovery

NOW = 1_790_000_000.0
SERVES = FleetWord(exists=True, usable=1)
NONE = FleetWord(exists=False, message="there is no InferenceFleet tiny in namespace team")
PODS = {"pod-0": "tiny-0a1b2c3d-0", "pod-1": "tiny-0a1b2c3d-1"}


def status(
    of: AdminSession | None = None,
    *,
    refusal: Refusal | None = None,
    fleet: FleetWord = SERVES,
    before: SessionStatus | None = None,
) -> SessionStatus:
    return judge(
        generation=2,
        record=of,
        refusal=refusal,
        fleet=fleet,
        pod_of=lambda worker: PODS.get(worker.partition(".")[0], worker),
        before=before,
        now=NOW,
    )


def verdict(made: SessionStatus) -> tuple[str, str, str, str]:
    """Phase; Ready, Bound and the reason of Ready."""
    ready, bound = condition(made, "Ready"), condition(made, "Bound")
    return (str(made.phase), ready.status, bound.status, ready.reason)


def refused(type_: str, message: str = "no", why: str = "") -> Refusal:
    return Refusal(type_, message, why)


class TestReasons:
    """Ready: a turn would be admitted now. Bound: it holds a slot."""

    def test_bound(self) -> None:
        made = status(record(worker="pod-0.boot"))
        assert verdict(made) == ("Bound", "True", "True", "Bound")
        assert condition(made, "Bound").message == "a slot of tiny-0a1b2c3d-0"
        assert made.worker == "tiny-0a1b2c3d-0"
        assert made.endpoint == "/v1/sessions/team/alice/turns"
        assert made.observed_generation == 2

    def test_a_hibernated_session_is_ready(self) -> None:
        made = status(record())
        assert verdict(made) == ("Hibernated", "True", "False", "Hibernated")
        assert made.worker is None

    def test_no_fleet(self) -> None:
        made = status(refusal=refused("no_such_fleet"), fleet=NONE)
        assert verdict(made) == ("Pending", "False", "False", "FleetNotFound")
        assert condition(made, "Ready").message == NONE.message

    def test_no_fleet_any_more(self) -> None:
        assert verdict(status(record(), fleet=NONE)) == ("Pending", "False", "False", "FleetNotFound")

    @pytest.mark.parametrize("why", ["NoCapacity", "Unschedulable", "ImagePull", "ModelLoadFailed", "PodRefused"])
    def test_its_fleets_reasons_are_its_own(self, why: str) -> None:
        word = FleetWord(exists=True, usable=0, reason=why, message="in the cluster's words")
        for made in (status(refusal=refused("no_such_fleet"), fleet=word), status(record(), fleet=word)):
            assert verdict(made) == ("Pending", "False", "False", why)
            assert condition(made, "Ready").message == "in the cluster's words"

    def test_a_fleet_that_serves_without_a_place_for_it(self) -> None:
        assert verdict(status(refusal=refused("no_capacity")))[1:] == ("False", "False", "NoCapacity")

    def test_a_slot_of_a_fleet_of_which_nobody_serves(self) -> None:
        made = status(record(worker="pod-0.boot"), fleet=FleetWord(exists=True))
        assert verdict(made) == ("Bound", "False", "True", "NoCapacity")

    def test_the_name_is_a_clients(self) -> None:
        assert verdict(status(refusal=refused("session_exists"))) == ("Failed", "False", "False", "NameConflict")

    def test_closed_by_the_clock(self) -> None:
        made = status(refusal=refused("session_closing", why="idle_timeout"))
        assert verdict(made) == ("Closed", "False", "False", "IdleTimeout")

    @pytest.mark.parametrize("why", ["deleted", ""])
    def test_closed_by_order(self, why: str) -> None:
        assert verdict(status(refusal=refused("session_closing", why=why)))[3] == "Closed"

    def test_closing_as_soon_as_its_turn_ends(self) -> None:
        made = status(record(worker="pod-0.boot", closing="idle_timeout"))
        assert verdict(made) == ("Closed", "False", "True", "IdleTimeout")

    def test_the_ledger_has_lost_turns(self) -> None:
        made = status(record(lost=True))
        assert verdict(made) == ("Failed", "False", "False", "HistoryLost")

    def test_suspended(self) -> None:
        assert verdict(status(record(suspended=True))) == ("Suspended", "False", "False", "Suspended")

    def test_whatever_else_the_gateways_have_against_it(self) -> None:
        made = status(refusal=refused("invalid_request", "max_tokens is too many"))
        assert verdict(made) == ("Failed", "False", "False", "Refused")
        assert condition(made, "Ready").message == "max_tokens is too many"

    def test_no_gateway_answers(self) -> None:
        assert verdict(status(refusal=UNANSWERED)) == ("Pending", "False", "False", "GatewayUnavailable")


class TestWhatAPersonHasToMendComesFirst:
    @pytest.mark.parametrize(
        ("facts", "why"),
        [
            ({"lost": True, "closing": "idle_timeout", "suspended": True}, "HistoryLost"),
            ({"closing": "idle_timeout", "suspended": True}, "IdleTimeout"),
            ({"suspended": True}, "FleetNotFound"),
        ],
    )
    def test_of_a_session_that_is_there(self, facts: dict[str, Any], why: str) -> None:
        assert verdict(status(record(**facts), fleet=NONE))[3] == why

    @pytest.mark.parametrize(
        ("type_", "why"),
        [("session_exists", "NameConflict"), ("session_closing", "Closed"), ("no_such_fleet", "FleetNotFound")],
    )
    def test_of_one_that_is_not(self, type_: str, why: str) -> None:
        assert verdict(status(refusal=refused(type_), fleet=NONE))[3] == why


class TestHistory:
    BEFORE = SessionStatus(history=History(turns=4, head="abc"))

    def test_it_is_the_ledgers(self) -> None:
        assert status(record(turns=5, head="def"), before=self.BEFORE).history == History(turns=5, head="def")

    def test_an_empty_one_is_none(self) -> None:
        assert status(record()).history is None

    @pytest.mark.parametrize(
        "of", [None, record(), record(lost=True, turns=1, head="x")], ids=["none", "empty", "lost"]
    )
    def test_what_was_seen_is_not_unseen_by_a_ledger_that_has_less(self, of: AdminSession | None) -> None:
        assert status(of, before=self.BEFORE).history == self.BEFORE.history


class TestRecoveries:
    LOST = recovery("pod-0.boot", "pod-1.boot", NOW - 5)

    def test_the_last_one_is_told_by_the_names_of_pods(self) -> None:
        made = status(record(recoveries=3, last_recovery=self.LOST))
        assert made.recoveries == 3
        assert made.last_recovery == LastRecovery(
            from_="tiny-0a1b2c3d-0", to="tiny-0a1b2c3d-1", reason="WorkerLost", time=timestamp(NOW - 5)
        )

    def test_a_drain_is_another_reason(self) -> None:
        drained = recovery("pod-0.boot", "pod-1.boot", NOW, "drained")
        made = status(record(recoveries=1, last_recovery=drained))
        assert made.last_recovery is not None
        assert made.last_recovery.reason == "Drained"

    def test_what_was_told_stays_when_names_are_forgotten(self) -> None:
        before = status(record(recoveries=1, last_recovery=self.LOST))
        forgotten = recovery("gone.boot", "away.boot", NOW - 5)
        made = status(record(recoveries=1, last_recovery=forgotten), before=before)
        assert made.last_recovery == before.last_recovery

    def test_and_when_the_session_is_gone(self) -> None:
        before = status(record(recoveries=2, last_recovery=self.LOST))
        made = status(refusal=refused("session_closing"), before=before)
        assert (made.recoveries, made.last_recovery) == (2, before.last_recovery)


def test_the_reason_of_a_status() -> None:
    made = status(record())
    assert reason(made) == reason(made, "Bound") == "Hibernated"
    assert reason(made, "Other") == reason(None) == ""


def test_an_unknown_pod_is_told_as_it_is() -> None:
    assert status(record(worker="stranger.boot")).worker == "stranger.boot"
