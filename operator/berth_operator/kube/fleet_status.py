"""What an InferenceFleet's status says, from what is seen of its pods and workers. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from berth_api.crd import FleetStatus
from berth_api.crd.fleet import FleetPhase
from berth_operator.kube import labels
from berth_operator.kube.conditions import Fact, conditions
from berth_operator.kube.instances import Trouble
from berth_operator.kube.session_status import FleetWord
from berth_operator.model import FleetKey, Instance, Registration


@dataclass(frozen=True)
class FleetSeen:
    """One look at a fleet."""

    key: FleetKey
    generation: int
    revision: str
    desired: int
    instances: Sequence[Instance]
    registered: Sequence[Registration] | None
    """None: no gateway answers."""
    slots: int
    """Of a worker, as the spec has it."""
    troubles: Sequence[Trouble]
    """Of its pods, and of the gateways with them."""


def serving(seen: FleetSeen) -> list[Instance]:
    """Return the instances that take turns."""
    known = {worker.id: worker for worker in seen.registered or ()}
    return [
        instance
        for instance in seen.instances
        if instance.ready is not None
        and not instance.stopping
        and instance.unhealthy_since is None
        and (worker := known.get(instance.ready.id)) is not None
        and not worker.cordoned
    ]


def word(seen: FleetSeen) -> FleetWord:
    """Return what sessions have to know of it."""
    usable = len(serving(seen))
    if seen.troubles:
        return FleetWord(exists=True, usable=usable, reason=seen.troubles[0].reason, message=seen.troubles[0].message)
    if seen.desired == 0:
        return FleetWord(exists=True, usable=usable, message="the fleet rests at zero workers: a turn wakes it")
    return FleetWord(exists=True, usable=usable, message="no worker of the fleet serves")


def judge(seen: FleetSeen, before: FleetStatus | None, now: float) -> FleetStatus:
    """Return the status to show. While no gateway answers, who serves is what it was: nobody can say otherwise."""
    before = before or FleetStatus()
    live = [instance for instance in seen.instances if not instance.stopping]
    blind = seen.registered is None
    ready = (before.ready_replicas or 0) if blind else len(serving(seen))
    updated = sum(instance.place.revision == seen.revision for instance in live)
    facts = list(_facts(seen, ready, updated, len(live), blind=blind))
    return FleetStatus(
        observed_generation=seen.generation,
        phase=_phase(facts, ready, seen.desired),
        revision=seen.revision,
        replicas=len(live),
        ready_replicas=ready,
        updated_replicas=updated,
        desired_replicas=seen.desired,
        slots=(before.slots or 0) if blind else ready * seen.slots,
        selector=labels.selector(seen.key),
        conditions=conditions(facts, before.conditions, seen.generation, now),
    )


def invalid(generation: int, message: str, before: FleetStatus | None, now: float) -> FleetStatus:
    """Return the status of a fleet whose spec makes no sense: nothing is changed about its workers."""
    before = before or FleetStatus()
    facts = [Fact("Ready", "False", "InvalidSpec", message), Fact("Stalled", "True", "InvalidSpec", message)]
    found = conditions(facts, before.conditions, generation, now)
    return before.model_copy(update={"observed_generation": generation, "phase": "Stalled", "conditions": found})


def _facts(seen: FleetSeen, ready: int, updated: int, live: int, *, blind: bool) -> list[Fact]:
    enough, settled = ready >= seen.desired, live == updated == ready == seen.desired
    trouble = seen.troubles[0] if seen.troubles else None
    count = f"{ready} of {seen.desired} workers serve"
    if seen.desired == 0:
        facts = [Fact("Ready", "True", "ScaledToZero", "no workers are wanted")]
    elif enough:
        facts = [Fact("Ready", "True", "AllReady", count)]
    elif trouble is not None:
        facts = [Fact("Ready", "False", trouble.reason, f"{count}; {trouble.message}")]
    else:
        facts = [Fact("Ready", "False", "Progressing", count)]
    if blind:
        facts.append(
            Fact("Reconciling", "True", "GatewayUnavailable", "no gateway answers: only the dead are replaced")
        )
    elif not settled:
        facts.append(
            Fact("Reconciling", "True", "Progressing", f"{updated} of {live} workers are of the newest revision")
        )
    if trouble is not None and not settled:
        facts.append(Fact("Stalled", "True", trouble.reason, trouble.message))
    return facts


def _phase(facts: list[Fact], ready: int, desired: int) -> FleetPhase:
    kinds = {fact.type: fact for fact in facts}
    if "Stalled" in kinds:
        return "Degraded" if ready else "Stalled"
    if "Reconciling" in kinds:
        return "Progressing" if ready or desired == 0 else "Pending"
    return "Ready"
