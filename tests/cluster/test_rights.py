"""Least rights: what the chart's role gives is what the operator needs, all of it and nothing beyond."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from clusterkit.api import Api
from clusterkit.audit import Audit
from clusterkit.kubectl import Kubectl
from clusterkit.platform import ACCOUNT, RIGHTS
from clusterkit.scene import fleet, session
from clusterkit.waiting import until


@pytest.fixture
def berth_args() -> dict[str, Any]:
    """One gateway is enough: no worker will run, for there is no node."""
    return {"gateways": 1}


@pytest.mark.usefixtures("berth")
async def test_the_operator_uses_all_its_rights_and_misses_none(kubectl: Kubectl, audit: Audit, api: Api) -> None:
    """A pod made and removed, statuses, an Event: one of each thing it ever does."""
    await kubectl.apply([fleet("tiny"), session("alice"), session("bob", fleet="other")])
    await kubectl.wait("ifl/tiny", "condition=Stalled", 60)
    await until(lambda: told(kubectl, "FleetNotFound"), "an Event tells of the fleet that is not there")
    await kubectl.apply(fleet("tiny", replicas=0))
    await kubectl.wait("ifl/tiny", "condition=Ready", 60)
    await until(lambda: no_pods(kubectl), "the pod is removed")

    await audit.caught_up(api)
    asked = audit.requests(user=f":{kubectl.namespace}:{ACCOUNT}")
    assert [request for request in asked if request.code in {401, 403}] == []
    used = {(request.resource, request.verb) for request in asked if request.resource}
    assert used == granted()


def granted() -> set[tuple[str, str]]:
    rules = yaml.safe_load(RIGHTS.read_text())["rules"]
    return {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}


async def told(kubectl: Kubectl, reason: str) -> bool:
    return any(event["reason"] == reason for event in await kubectl.items("events"))


async def no_pods(kubectl: Kubectl) -> bool:
    return await kubectl.items("pods") == []
