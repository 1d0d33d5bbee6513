"""The API server or etcd is gone: turns go on, workers are replaced among themselves, the operator says what it is."""

from __future__ import annotations

from typing import Any

import pytest

from clusterkit.census import Wanted, settled
from clusterkit.control_plane import ControlPlane
from clusterkit.scene import Scene
from clusterkit.waiting import until
from fleetkit.client import greedy
from fleetkit.story import at_token, same, turn, turns, words

pytestmark = pytest.mark.timeout(600)

FIRST, SECOND, _ = turns(11, new=20)
LONG = greedy(words(12, 12), 400)


@pytest.fixture
def berth_args() -> dict[str, Any]:
    """Patience with machines: none could be heard meanwhile, and each must first say again that it is there."""
    return {"operator_args": ["--unreachable-s", "30"]}


async def test_turns_go_on_without_an_api_server(scene: Scene, plane: ControlPlane) -> None:
    """Even one that loses its worker; what was to be told of it is told later."""
    await scene.fleet(replicas=2)
    await scene.session("alice", "bob")
    await scene.ready("ifl/tiny", "ssn/alice", "ssn/bob")
    plan = (FIRST, LONG, SECOND)
    undisturbed = (await scene.client.open(fleet="tiny"))["name"]
    expected = [await turn(scene.client, undisturbed, body) for body in plan]
    home = await scene.pod_of("alice")
    assert (await probe(scene, "healthz"))[0] == (await probe(scene, "readyz"))[0] == 200

    plane.kill("kube-apiserver")
    told = [await turn(scene.client, "alice", FIRST)]
    told.append(await turn(scene.client, "alice", LONG, at_token(20, lambda: scene.node.kill(scene.namespace, home))))
    assert told[1].named("turn.moved")
    opened = (await scene.client.open(fleet="tiny"))["name"]
    same([await turn(scene.client, opened, FIRST)], expected[:1])
    await until(lambda: blind(scene), "the operator says that it sees nothing")
    assert (await probe(scene, "healthz"))[0] == 200, "to start it anew would not help"
    revive(plane, "kube-apiserver")

    told.append(await turn(scene.client, "alice", SECOND))
    same(told, expected)
    await settled(scene, Wanted({"tiny": 2}, {"alice": "Bound", "bob": "Bound"}), "all is as before")
    assert (await scene.status("ssn/alice"))["recoveries"] == 1
    await until(lambda: sees(scene), "the operator is ready")


async def test_etcd_may_be_killed_too(scene: Scene, plane: ControlPlane) -> None:
    await scene.fleet()
    await scene.session("alice", "bob")
    await scene.ready("ifl/tiny", "ssn/alice", "ssn/bob")

    plane.kill("etcd")
    assert (await turn(scene.client, "alice", FIRST)).outcome == "committed"
    await until(lambda: blind(scene), "the operator says that it sees nothing", 90)
    revive(plane, "etcd")
    assert (await turn(scene.client, "alice", SECOND)).outcome == "committed"
    await until(lambda: sees(scene), "the operator is ready")
    await scene.kubectl.delete("ssn", "bob")
    await scene.session("carol")
    await settled(scene, Wanted({"tiny": 1}, {"alice": "Bound", "carol": "Bound"}), "orders are carried out again")


def revive(plane: ControlPlane, name: str) -> None:
    """Start a part again, and those that did not outlive its absence."""
    for each in (name, *plane.ended()):
        if not plane.children[each].alive:
            plane.start(each)


async def blind(scene: Scene) -> bool:
    status, said = await probe(scene, "readyz")
    return status == 503 and "no complete list" in said


async def sees(scene: Scene) -> bool:
    return (await probe(scene, "readyz"))[0] == (await probe(scene, "healthz"))[0] == 200


async def probe(scene: Scene, path: str) -> tuple[int, str]:
    async with scene.http.get(f"{scene.platform.operator.url}/{path}") as answer:
        return answer.status, await answer.text()
