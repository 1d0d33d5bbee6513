"""A session's end, and the next one of its name: in mid-turn, beside a client's own, kept over HTTP."""

from __future__ import annotations

from clusterkit.census import ledger_sessions
from clusterkit.scene import VERSION, Scene, session
from clusterkit.waiting import until
from fleetkit.client import greedy
from fleetkit.story import at_token, same, turn, turns, words

FIRST, SECOND, _ = turns(3, new=20)
LONG = greedy(words(5, 12), 400)
"""A second or more: time for whatever is to happen in its middle."""


async def test_a_session_deleted_in_mid_turn_ends_honestly(scene: Scene) -> None:
    """Its turn has one end, its slot is free after it, and the next one of its name begins with nothing."""
    await scene.fleet()
    await scene.session("alice", "bob")
    await scene.ready("ifl/tiny", "ssn/alice", "ssn/bob")
    fresh = await turn(scene.client, (await scene.client.open(fleet="tiny"))["name"], FIRST)

    path = f"/apis/{VERSION}/namespaces/{scene.namespace}/streamingsessions"

    async def delete() -> None:
        await scene.api.delete(f"{path}/alice")

    async def replace() -> None:
        await scene.api.delete(f"{path}/bob")
        await scene.api.create(path, session("bob"))

    uid = (await scene.client.session("bob"))["uid"]
    for name in ("alice", "bob"):
        assert (await turn(scene.client, name, FIRST)).outcome == "committed"
    deleted = await turn(scene.client, "alice", LONG, at_token(20, delete))
    assert deleted.outcome in {"committed", "aborted"}
    await holds(scene, "bob")
    replaced = await turn(scene.client, "bob", LONG, at_token(20, replace))
    assert replaced.outcome in {"committed", "aborted"}
    if replaced.outcome == "aborted":
        assert (replaced.end["reason"], replaced.end["retry_safe"]) == ("session_replaced", False)

    await another(scene, "bob", uid)
    same([await turn(scene.client, "bob", FIRST)], [fresh])
    await holds(scene, "bob")
    assert set(await ledger_sessions(scene)) == {"bob"}


async def test_a_name_is_its_first_owners_until_that_lets_it_go(scene: Scene) -> None:
    """A client's session is not a resource's to take; one that is retained becomes a client's."""
    await scene.fleet()
    await scene.session("carol", deletionPolicy="Retain")
    await scene.ready("ifl/tiny", "ssn/carol")
    await scene.client.open("bob", fleet="tiny")
    plan = (FIRST, SECOND)
    told = [await turn(scene.client, "bob", body) for body in plan]
    before = await scene.client.history("bob")

    await scene.session("bob")
    assert "client" in await scene.reason("ssn/bob", "NameConflict")
    assert await scene.client.history("bob") == before
    assert (await turn(scene.client, "bob", FIRST)).outcome == "committed"
    assert [event["involvedObject"]["name"] for event in await scene.events("NameConflict")] == ["bob"]
    assert (await scene.client.call("DELETE", scene.client.path("bob"))).status < 300
    await scene.ready("ssn/bob")
    assert (await scene.client.session("bob"))["turns"] == 0
    same([await turn(scene.client, "bob", body) for body in plan], told)

    assert (await turn(scene.client, "carol", FIRST)).outcome == "committed"
    refused = await scene.client.call("DELETE", scene.client.path("carol"))
    assert (refused.status, refused.type) == (409, "managed_by_resource")
    await scene.kubectl.delete("ssn", "carol")
    await until(lambda: retained(scene, "carol"), "the conversation is its clients'")
    same([await turn(scene.client, "carol", SECOND)], told[1:])
    assert (await scene.client.call("DELETE", scene.client.path("carol"))).status < 300
    assert (await scene.client.call("GET", scene.client.path("carol"))).status == 404


async def retained(scene: Scene, name: str) -> bool:
    view = await scene.client.session(name)
    return (view["origin"], view["turns"]) == ("http", 1)


async def another(scene: Scene, name: str, uid: str) -> None:
    """Wait until the ledger has the new resource's session, which must be empty."""

    async def so() -> bool:
        kept = (await ledger_sessions(scene))[name]
        resource = await scene.kubectl.get(f"ssn/{name}")
        return bool(kept["uid"] == resource["metadata"]["uid"] != uid)

    await until(so, f"{name} is another session")
    assert (await scene.client.session(name))["turns"] == 0
    await scene.ready(f"ssn/{name}")


async def holds(scene: Scene, *sessions: str) -> None:
    """Wait until the worker keeps KV for these and the undisturbed one alone, by its own account."""
    (pod,) = await scene.pods()
    url = f"http://{pod['status']['podIP']}:8000/metrics"

    async def so() -> bool:
        async with scene.http.get(url, headers=scene.platform.rig.worker_headers()) as answer:
            lines = (await answer.text()).splitlines()
        held = {line.split()[0]: float(line.split()[1]) for line in lines if line.startswith("berth_worker_slots{")}
        assert held['berth_worker_slots{state="active"}'] == 0, held
        return held['berth_worker_slots{state="idle_held"}'] == 1 + len(sessions)

    await until(so, f"slots are held by {sessions} and nobody else")
