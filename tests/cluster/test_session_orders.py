"""What a session's spec orders is done while it lives: rest, sleep, end; and what its turns do when a worker dies."""

from __future__ import annotations

from clusterkit.scene import VERSION, Scene
from clusterkit.waiting import until
from fleetkit.client import Streamed, greedy
from fleetkit.story import at_token, same, turn, turns, words

FIRST, SECOND, _ = turns(4, new=20)
LONG = greedy(words(6, 12), 400)


async def test_sessions_rest_and_end_as_their_specs_say(scene: Scene) -> None:
    await scene.fleet()
    await scene.session("brief", idleTimeout="4s")
    await scene.session("sleepy", hibernateAfter="3s")
    await scene.session("paused")
    await scene.session("strict", onWorkerFailure="Abort")
    await scene.ready("ifl/tiny", "ssn/brief", "ssn/sleepy", "ssn/paused", "ssn/strict")
    undisturbed = (await scene.client.open(fleet="tiny"))["name"]
    expected = [await turn(scene.client, undisturbed, body) for body in (FIRST, LONG, SECOND)]

    await ends_when_idle(scene)
    await hibernates(scene)
    told = [await turn(scene.client, "paused", FIRST), await suspended_in_mid_turn(scene)]
    await scene.kubectl.raw("patch", "ssn/paused", "--type=merge", "-p", '{"spec":{"suspend":false}}')
    await scene.reason("ssn/paused", "Bound")
    same([*told, await turn(scene.client, "paused", SECOND)], expected)
    await aborts_with_its_worker(scene)


async def ends_when_idle(scene: Scene) -> None:
    """It has ended and stays so; the same manifest, deleted and applied again, is another session."""
    await scene.reason("ssn/brief", "IdleTimeout")
    assert (await scene.status("ssn/brief"))["phase"] == "Closed"
    assert (await scene.client.say("brief", FIRST)).type == "no_such_session"
    (event,) = await scene.events("IdleTimeout")
    assert event["involvedObject"]["name"] == "brief"
    await scene.kubectl.delete("ssn", "brief")
    await scene.session("brief")
    await scene.ready("ssn/brief")
    assert (await turn(scene.client, "brief", FIRST)).outcome == "committed"


async def hibernates(scene: Scene) -> None:
    """Without a slot it is Ready all the same, and its next turn has one."""
    await scene.reason("ssn/sleepy", "Hibernated")
    assert (await scene.condition("ssn/sleepy"))[0] == "True"
    assert (await scene.condition("ssn/sleepy", "Bound"))[0] == "False"
    assert (await scene.client.session("sleepy"))["worker"] is None
    assert (await turn(scene.client, "sleepy", FIRST)).outcome == "committed"
    assert (await scene.client.session("sleepy"))["worker"] is not None
    await scene.reason("ssn/sleepy", "Bound")
    await scene.reason("ssn/sleepy", "Hibernated")
    assert (await scene.client.session("sleepy"))["turns"] == 1


async def suspended_in_mid_turn(scene: Scene) -> Streamed:
    """The turn that runs may end; then the slot is given up, and no other begins."""

    async def suspend() -> None:
        await scene.api.patch(
            f"/apis/{VERSION}/namespaces/{scene.namespace}/streamingsessions/paused", {"spec": {"suspend": True}}
        )

    told = await turn(scene.client, "paused", LONG, at_token(20, suspend))
    await scene.reason("ssn/paused", "Suspended")
    assert (await scene.status("ssn/paused"))["phase"] == "Suspended"

    async def resting() -> bool:
        return (await scene.client.session("paused"))["worker"] is None

    await until(resting, "its slot is given up")
    refused = await scene.client.say("paused", SECOND)
    assert (refused.status, refused.type) == (409, "managed_by_resource")
    return told


async def aborts_with_its_worker(scene: Scene) -> None:
    """onWorkerFailure: Abort. The turn never happened, and may be sent again."""
    assert (await turn(scene.client, "strict", FIRST)).outcome == "committed"
    head = (await scene.client.session("strict"))["head"]

    async def kill() -> None:
        scene.node.kill(scene.namespace, await scene.pod_of("strict"))

    told = await turn(scene.client, "strict", LONG, at_token(20, kill))
    assert told.outcome == "aborted"
    assert (told.end["retry_safe"], told.end["head"]) == (True, head)
    assert (await scene.client.session("strict"))["head"] == head
    await scene.ready("ifl/tiny", "ssn/strict")
    assert (await turn(scene.client, "strict", LONG)).outcome == "committed"
