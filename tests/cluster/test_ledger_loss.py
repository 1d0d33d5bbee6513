"""The ledger dies and comes back, or is lost; the gateways are gone for a while: nothing is silently empty."""

from __future__ import annotations

from clusterkit.api import Object
from clusterkit.audit import Audit
from clusterkit.census import looked_again
from clusterkit.platform import ACCOUNT
from clusterkit.scene import Scene, fleet, template
from clusterkit.waiting import until
from fleetkit.story import insist, same, turn, turns

FIRST, SECOND, THIRD = turns(9, new=20)
LISTS = 40
"""Complete lists that the operator makes while the gateways are gone: for two minutes."""


async def test_a_ledger_that_comes_back_has_everything_and_a_lost_one_says_so(scene: Scene) -> None:
    await scene.fleet()
    await scene.session("alice", "bob")
    await scene.ready("ifl/tiny", "ssn/alice", "ssn/bob")
    undisturbed = (await scene.client.open(fleet="tiny"))["name"]
    expected = [await turn(scene.client, undisturbed, body) for body in (FIRST, SECOND, THIRD)]
    told = [await turn(scene.client, "alice", body) for body in (FIRST, SECOND)]
    await until(lambda: has_history(scene, "alice"), "the resource tells of its history")
    before = await scene.client.history("alice")

    await scene.platform.redis.kill()
    await scene.reason("ifl/tiny", "GatewayUnavailable", "Reconciling")
    assert (await scene.client.say("alice", THIRD)).type == "ledger_unavailable"
    await scene.platform.redis.start()
    await settled(scene, "alice", "bob")
    assert await scene.client.history("alice") == before
    same([*told, await turn(scene.client, "alice", THIRD)], expected)

    await scene.platform.redis.flush()
    await scene.reason("ssn/alice", "HistoryLost")
    assert (await scene.status("ssn/alice"))["phase"] == "Failed"
    refused = await scene.client.say("alice", THIRD)
    assert (refused.status, refused.type) == (410, "history_lost")
    assert [event["involvedObject"]["name"] for event in await scene.events("HistoryLost")] == ["alice"]
    await settled(scene, "bob")
    same([await turn(scene.client, "bob", FIRST)], expected[:1])
    assert (await scene.status("ssn/alice"))["history"]["turns"] >= 1, "what was seen is not unseen"

    await scene.kubectl.delete("ssn", "alice")
    await scene.session("alice")
    await settled(scene, "alice")
    same([await turn(scene.client, "alice", FIRST)], expected[:1])


async def has_history(scene: Scene, name: str) -> bool:
    return bool((await scene.status(f"ssn/{name}"))["history"]["turns"])


async def settled(scene: Scene, *sessions: str) -> None:
    """Wait until the fleet is Ready with nothing under way, and these sessions are."""

    async def so() -> bool:
        return await scene.condition("ifl/tiny", "Reconciling") == ("", "", "")

    await until(so, "the gateways are there again", 60)
    await scene.ready("ifl/tiny", *(f"ssn/{name}" for name in sessions))


async def test_without_gateways_the_dead_are_replaced_and_nothing_else_is_touched(scene: Scene, audit: Audit) -> None:
    """A new template and a smaller number wait until somebody can say what runs where."""
    await scene.fleet(replicas=2)
    await scene.session("alice")
    await scene.ready("ifl/tiny", "ssn/alice")
    first = await turn(scene.client, "alice", FIRST)
    (revision,) = {pod["metadata"]["labels"]["berth.dev/revision"] for pod in await scene.pods()}
    lost, _ = await scene.pods()
    gateways = list(scene.platform.gateways)
    for gateway in gateways:
        await scene.platform.rig.drop_gateway(gateway)
    await scene.reason("ifl/tiny", "GatewayUnavailable", "Reconciling")
    before = await audit.caught_up(scene.api)

    await scene.api.delete(f"/api/v1/namespaces/{scene.namespace}/pods/{lost['metadata']['name']}", grace_s=0)
    uids = await until(lambda: two_without(scene, lost), "the dead pod is replaced")
    await scene.kubectl.apply(fleet("tiny", replicas=1, template=template(ROUND="2")))
    await looked_again(scene, audit, LISTS)
    assert await two_without(scene, lost) == uids
    written = audit.writes(since=before, user=f":{ACCOUNT}", resource="pods")
    assert [write.verb for write in written] == ["create"]
    assert (await scene.condition("ssn/alice"))[:2] == ("True", "Bound"), "nobody can say otherwise"

    for gateway in gateways:
        await scene.platform.rig.revive_gateway(gateway)
    await until(lambda: rolled(scene, revision), "the newest template and number hold", 180)
    await scene.ready("ifl/tiny", "ssn/alice")
    told = await insist(scene.client, "alice", SECOND)
    assert (first.end["turn_index"], told.body["turn_index"]) == (0, 1)


async def two_without(scene: Scene, lost: Object) -> set[str]:
    """Return the uids of the pods; two, of which this one is none."""
    uids = {str(pod["metadata"]["uid"]) for pod in await scene.kubectl.items("pods")}
    assert len(uids - {lost["metadata"]["uid"]}) == len(uids) == 2
    return uids


async def rolled(scene: Scene, old: str) -> bool:
    """One pod of another revision, and nobody else in the ledger."""
    pods = await scene.kubectl.items("pods")
    workers = await scene.platform.admin("GET", "/admin/workers")
    assert [pod["metadata"]["labels"]["berth.dev/revision"] != old for pod in pods] == [True]
    return [worker["id"].partition(".")[0] for worker in workers] == [pod["metadata"]["uid"] for pod in pods]
