"""All that there is of Berth in a namespace, compared with what should be: resources, pods, workers, the ledger.

Wanted(fleets={"tiny": 1}, sessions={"alice": "Bound", "bob": "Suspended"})

A session is named with the reason of its condition Ready. What is wanted is all: one pod more is one too many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from clusterkit.api import Object
from clusterkit.audit import Audit
from clusterkit.platform import ACCOUNT
from clusterkit.scene import VERSION, Scene
from clusterkit.waiting import until


@dataclass(frozen=True)
class Wanted:
    """The workers of each fleet and the reason of each session's Ready."""

    fleets: Mapping[str, int] = field(default_factory=dict)
    sessions: Mapping[str, str] = field(default_factory=dict)


async def settled(scene: Scene, wanted: Wanted, what: str, timeout_s: float = 120.0) -> None:
    """Wait until everything is as wanted, and nothing is under way any more."""

    async def so() -> bool:
        try:
            fleets, sessions, pods, workers, kept = await _all(scene)
        except RuntimeError as error:
            raise LookupError(f"the gateways cannot say: {error}") from error
        _check_fleets(fleets, wanted.fleets)
        _check_workers(pods, workers, wanted.fleets)
        _check_sessions(sessions, wanted.sessions)
        _check_ledger(sessions, kept)
        return True

    await until(so, what, timeout_s, every_s=0.5)


async def looked_again(scene: Scene, audit: Audit, times: int) -> None:
    """Wait until the operator has listed everything so often from now on."""
    since = await audit.caught_up(scene.api)

    async def so() -> bool:
        return len(audit.requests(since=since, user=f":{ACCOUNT}", resource="pods", verb="list")) >= times

    await until(so, f"the operator makes {times} complete lists", timeout_s=60 + 6 * times, every_s=0.5)


async def ledger_sessions(scene: Scene, origin: str = "cr") -> dict[str, Object]:
    """Return what the ledger keeps, by name."""
    asked = f"/admin/sessions?namespace={scene.namespace}&origin={origin}&limit=1000"
    return {one["name"]: one for one in (await scene.platform.admin("GET", asked))["sessions"]}


async def _all(scene: Scene) -> tuple[list[Object], list[Object], list[Object], list[Object], dict[str, Object]]:
    here, core = f"/apis/{VERSION}/namespaces/{scene.namespace}", f"/api/v1/namespaces/{scene.namespace}"
    fleets, sessions, pods, workers, kept = await asyncio.gather(
        scene.api.list(f"{here}/inferencefleets"),
        scene.api.list(f"{here}/streamingsessions"),
        scene.api.list(f"{core}/pods"),
        scene.platform.admin("GET", f"/admin/workers?namespace={scene.namespace}"),
        ledger_sessions(scene),
    )
    return fleets, sessions, pods, workers, kept


def _check_fleets(fleets: list[Object], wanted: Mapping[str, int]) -> None:
    assert {one["metadata"]["name"] for one in fleets} == set(wanted)
    for one in fleets:
        name, status = one["metadata"]["name"], one["status"]
        assert status["observedGeneration"] == one["metadata"]["generation"], name
        counts = [status[f"{kind}eplicas"] for kind in ("r", "readyR", "updatedR", "desiredR")]
        assert counts == 4 * [wanted[name]], (name, status)
        conditions = {each["type"]: each["status"] for each in status["conditions"]}
        assert conditions == {"Ready": "True"}, (name, status)


def _check_workers(pods: list[Object], workers: list[Object], wanted: Mapping[str, int]) -> None:
    """The pods there are are those that serve, and no worker is left in the ledger without one."""
    placed = sorted(pod["metadata"]["labels"]["berth.dev/fleet"] for pod in pods)
    assert placed == sorted(name for name, count in wanted.items() for _ in range(count))
    uids = sorted(pod["metadata"]["uid"] for pod in pods)
    assert sorted(worker["id"].partition(".")[0] for worker in workers) == uids
    assert not [worker for worker in workers if worker["cordoned"]]


def _check_sessions(sessions: list[Object], wanted: Mapping[str, str]) -> None:
    for one in sessions:
        name, status = one["metadata"]["name"], one.get("status", {})
        assert status.get("observedGeneration") == one["metadata"]["generation"], (name, status)
        reasons = {each["type"]: each["reason"] for each in status["conditions"]}
        assert reasons["Ready"] == wanted.get(name), (name, status)
        assert bool(status.get("worker")) == (reasons["Ready"] == "Bound"), (name, status)
    assert {one["metadata"]["name"] for one in sessions} == set(wanted)


def _check_ledger(sessions: list[Object], kept: Mapping[str, Object]) -> None:
    """No session of a resource is without one. (One whose fleet never had a worker has none in the ledger yet.)"""
    uids = {one["metadata"]["name"]: one["metadata"]["uid"] for one in sessions}
    assert {name: one["uid"] for name, one in kept.items()}.items() <= uids.items()
    for one in sessions:
        name, spec = one["metadata"]["name"], one["spec"]
        if one["status"].get("endpoint"):
            record = kept[name]
            assert (record["suspended"], record.get("max_tokens")) == (spec["suspend"], spec.get("maxTokens")), name
