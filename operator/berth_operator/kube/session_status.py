"""What a StreamingSession's status says, from what the ledger has and what its fleet can do. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from berth_api.admin import AdminSession
from berth_api.crd import Condition, History, LastRecovery, SessionStatus
from berth_api.crd.session import SessionPhase
from berth_operator.kube.conditions import Fact, conditions, timestamp

ENDED = ("IdleTimeout", "Closed")
RECOVERY_REASONS: dict[str, Literal["WorkerLost", "Drained"]] = {"worker_lost": "WorkerLost", "drained": "Drained"}


@dataclass(frozen=True)
class Refusal:
    """Why the gateways would not have the session: the problem's type, and what it says."""

    type: str
    message: str
    reason: str = ""
    """Of a closed session: why it was closed."""


UNANSWERED = Refusal("unanswered", "no gateway answers: nobody can say how it is")


@dataclass(frozen=True)
class FleetWord:
    """What a session has to know of its fleet."""

    exists: bool
    usable: int = 0
    """Workers that would take a turn now."""
    reason: str = "NoCapacity"
    message: str = ""
    """Why there are none."""


def judge(
    *,
    generation: int,
    record: AdminSession | None,
    refusal: Refusal | None,
    fleet: FleetWord,
    pod_of: Callable[[str], str],
    before: SessionStatus | None,
    now: float,
) -> SessionStatus:
    """Return the status to show. `pod_of` names the pod of a worker's id."""
    before = before or SessionStatus()
    ready = _ready(record, refusal, fleet)
    bound = _bound(record, ready, pod_of)
    return SessionStatus(
        observed_generation=generation,
        phase=_phase(ready, bound),
        worker=pod_of(record.worker) if record is not None and record.worker else None,
        endpoint=record.endpoint if record is not None else None,
        history=_history(record, before),
        recoveries=record.recoveries if record is not None else before.recoveries or 0,
        last_recovery=_recovery(record, before, pod_of),
        conditions=conditions([ready, bound], before.conditions, generation, now),
    )


def invalid(generation: int, message: str, now: float) -> SessionStatus:
    """Return the status of a new session whose spec makes no sense."""
    facts = [Fact("Ready", "False", "InvalidSpec", message), Fact("Bound", "False", "InvalidSpec", "it holds no slot")]
    return SessionStatus(
        observed_generation=generation, phase="Failed", conditions=conditions(facts, (), generation, now)
    )


def reason(status: SessionStatus | None, type_: str = "Ready") -> str:
    """Return the reason of a condition; "" without one."""
    found = [each for each in (status.conditions if status else ()) if each.type == type_]
    return found[0].reason if found else ""


def condition(status: SessionStatus, type_: str) -> Condition:
    return next(each for each in status.conditions if each.type == type_)


def _ready(record: AdminSession | None, refusal: Refusal | None, fleet: FleetWord) -> Fact:
    if refusal is not None and refusal.type == "session_exists":
        text = "a client made a session of this name: it belongs to the client"
        return Fact("Ready", "False", "NameConflict", text)
    if refusal is not None and refusal.type == "session_closing":
        return _closed(refusal.reason)
    if record is not None and record.lost:
        text = "the ledger has lost turns of this session: delete it, and make another to begin anew"
        return Fact("Ready", "False", "HistoryLost", text)
    if record is not None and record.closing:
        return _closed(record.closing)
    if not fleet.exists:
        return Fact("Ready", "False", "FleetNotFound", fleet.message)
    if refusal is UNANSWERED:
        return Fact("Ready", "False", "GatewayUnavailable", UNANSWERED.message)
    if refusal is not None and refusal.type not in ("no_such_fleet", "no_capacity"):
        return Fact("Ready", "False", "Refused", refusal.message)
    if record is not None and record.suspended:
        return Fact("Ready", "False", "Suspended", "spec.suspend is true")
    if record is None or fleet.usable == 0:
        return Fact("Ready", "False", fleet.reason, fleet.message)
    if record.worker is None:
        return Fact("Ready", "True", "Hibernated", "its tokens are safe; the next turn computes the KV again")
    return Fact("Ready", "True", "Bound", "it holds a slot")


def _closed(why: str) -> Fact:
    if why == "idle_timeout":
        return Fact("Ready", "False", "IdleTimeout", "closed after spec.idleTimeout without a turn")
    return Fact("Ready", "False", "Closed", f"the session was closed ({why or 'by its user'})")


def _bound(record: AdminSession | None, ready: Fact, pod_of: Callable[[str], str]) -> Fact:
    if record is not None and record.worker:
        return Fact("Bound", "True", "Bound", f"a slot of {pod_of(record.worker)}")
    return Fact("Bound", "False", ready.reason, "it holds no slot")


def _phase(ready: Fact, bound: Fact) -> SessionPhase:
    if ready.reason in ("HistoryLost", "NameConflict", "Refused"):
        return "Failed"
    if ready.reason in ENDED:
        return "Closed"
    if ready.reason == "Suspended":
        return "Suspended"
    if bound.status == "True":
        return "Bound"
    return "Hibernated" if ready.status == "True" else "Pending"


def _history(record: AdminSession | None, before: SessionStatus) -> History | None:
    """A ledger that has less than was seen before does not make it unseen."""
    if record is None or record.lost or record.turns == 0:
        return before.history
    return History(turns=record.turns, head=record.head)


def _recovery(record: AdminSession | None, before: SessionStatus, pod_of: Callable[[str], str]) -> LastRecovery | None:
    """What was told of a recovery stays: the names of pods that are gone are known only for a while."""
    last, told = record.last_recovery if record is not None else None, before.last_recovery
    if last is None or (told is not None and told.time == timestamp(last.at)):
        return told
    return LastRecovery(
        from_=pod_of(last.from_), to=pod_of(last.to), reason=RECOVERY_REASONS[last.reason], time=timestamp(last.at)
    )
