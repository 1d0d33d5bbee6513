"""The ledger dies and comes back, or is lost; the gateways are gone for a while: nothing is silently empty."""

from __future__ import annotations

from clusterkit.audit import Audit
from clusterkit.census import looked_again
from clusterkit.platform import ACCOUNT
from clusterkit.scene import Scene, fleet, template
from clusterkit.waiting import until
from fleetkit.story import insist, same, turn, turns

FIRST, SECOND, THIRD = turns(9, new=20)
LISTS = 4
"""Complete lists that the operator makes while the gateways are gone: twelve seconds of its days."""


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
    lost, kept = sorted(await scene.pods(), key=lambda pod: pod["metadata"]["name"])
    gateways = list(scene.platform.gateways)
    for gateway in gateways:
        await scene.platform.rig.drop_gateway(gateway)
    await scene.reason("ifl/tiny", "GatewayUnavailable", "Reconciling")
    before = await audit.caught_up(scene.api)

    path = f"/api/v1/namespaces/{scene.namespace}/pods/{lost['metadata']['name']}"
    await scene.api.delete(path, grace_s=0)
    replaced = await until(lambda: another(scene, path, lost["metadata"]["uid"]), "the dead pod is replaced")
    await scene.kubectl.apply(fleet("tiny", replicas=1, template=template(ROUND="2")))
    await looked_again(scene, audit, LISTS)
    uids = {pod["metadata"]["uid"] for pod in await scene.kubectl.items("pods")}
    assert uids == {kept["metadata"]["uid"], replaced}
    written = audit.writes(since=before, user=f":{ACCOUNT}", resource="pods")
    assert [(write.verb, write.name) for write in written] == [("create", lost["metadata"]["name"])]
    assert (await scene.condition("ssn/alice"))[:2] == ("True", "Bound"), "nobody can say otherwise"

    for gateway in gateways:
        await scene.platform.rig.revive_gateway(gateway)
    await until(lambda: rolled(scene, revision), "the newest template and number hold", 180)
    await scene.ready("ifl/tiny", "ssn/alice")
    told = await insist(scene.client, "alice", SECOND)
    assert (first.end["turn_index"], told.body["turn_index"]) == (0, 1)


async def another(scene: Scene, path: str, uid: str) -> str:
    found = (await scene.api.find(path) or {"metadata": {"uid": uid}})["metadata"]["uid"]
    return "" if found == uid else str(found)


async def rolled(scene: Scene, old: str) -> bool:
    """One pod of another revision, and nobody else in the ledger."""
    (pod,) = await scene.kubectl.items("pods")
    assert pod["metadata"]["labels"]["berth.dev/revision"] != old
    (worker,) = await scene.platform.admin("GET", "/admin/workers")
    return str(worker["id"]).startswith(pod["metadata"]["uid"])
