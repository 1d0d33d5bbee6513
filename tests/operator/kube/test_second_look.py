"""What is made or taken away is decided by what is so now, not by what the watch has told so far."""

from __future__ import annotations

import copy

import pytest

from berth_operator.kube.store import Kind, Listing
from kubekit.bodies import fleet
from kubekit.world import World, key


@pytest.fixture
async def served(world: World) -> World:
    """A fleet of one worker that serves."""
    world.add_node()
    world.cluster.put("fleet", fleet())
    await world.rounds(2)
    world.run_pods()
    await world.until(lambda: world.condition("fleet", "tiny").get("reason") == "AllReady")
    return world


async def test_a_worker_that_the_watch_has_not_told_of_is_not_dropped(served: World) -> None:
    """Another operator has replaced the pod, and registered the new one's worker."""
    (pod,) = served.cluster.all("pod")
    served.cluster.remove("pod", pod["metadata"]["name"])
    again = pod | {"metadata": pod["metadata"] | {"uid": "uid-again"}}
    served.run_pod(again)
    url = f"http://{served.cluster.all('pod')[0]['status']['podIP']}:8000"
    served.admin.register("uid-again.boot", url)

    await served.rounds(5, watch=False)

    assert "uid-again.boot" in served.admin.workers_known
    assert set(served.admin.asked("drop_worker")) == {("drop_worker", f"{pod['metadata']['uid']}.boot")}


async def test_a_pod_that_has_recovered_behind_the_watchs_back_is_not_replaced(served: World) -> None:
    """The API server was gone for a minute, and with it the news that the worker is ready again."""
    tell_ready(served, "False")
    await served.round()
    tell_ready(served, "True")
    served.cluster.breaks("list", times=1000)
    await served.rounds(70, watch=False)
    served.cluster.mended()
    await served.rounds(5)
    assert served.cluster.made("delete_pod") == []


async def test_what_is_gone_is_dropped_at_the_second_look(served: World) -> None:
    (pod,) = served.cluster.all("pod")
    served.cluster.remove("pod", pod["metadata"]["name"])
    await served.rounds(2)
    assert set(served.admin.asked("drop_worker")) == {("drop_worker", f"{pod['metadata']['uid']}.boot")}


async def test_a_pod_that_nobody_wants_any_more_is_not_made_again(served: World) -> None:
    """Another operator has ended it for a fleet that rests by now, and of the two the watch tells of the pod first."""
    (pod,) = served.cluster.all("pod")
    served.cluster.put("fleet", fleet(replicas=0))
    served.cluster.remove("pod", pod["metadata"]["name"])
    served.admin.workers_known.clear()
    served.store.heard("pod", pod, deleted=True)
    served.operator.triggers.look_at_fleet(key("tiny"))

    await served.round(watch=False)

    assert served.cluster.all("pod") == []


async def test_an_answer_from_before_a_sleep_is_asked_for_again(served: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fleet was listed as it wanted a worker; when the answer is read, ten seconds on, it wants none."""
    (pod,) = served.cluster.all("pod")
    served.cluster.remove("pod", pod["metadata"]["name"])
    served.admin.workers_known.clear()
    served.store.heard("pod", pod, deleted=True)
    served.operator.triggers.look_at_fleet(key("tiny"))
    real = served.cluster.list

    async def asleep(kind: Kind, namespace: str | None) -> Listing:
        answer = await real(kind, namespace)
        if kind == "fleet":
            monkeypatch.setattr(served.cluster, "list", real)
            served.clock.advance(10)
            served.cluster.put("fleet", fleet(replicas=0))
        return answer

    monkeypatch.setattr(served.cluster, "list", asleep)
    await served.round(watch=False)

    assert served.cluster.all("pod") == []


def tell_ready(world: World, status: str) -> None:
    """Have the pod's machine say so."""
    (pod,) = copy.deepcopy(world.cluster.all("pod"))
    for condition in pod["status"]["conditions"]:
        if condition["type"] == "Ready":
            condition.update(status=status, lastTransitionTime=world.clock.stamp())
    world.cluster.put("pod", pod)
