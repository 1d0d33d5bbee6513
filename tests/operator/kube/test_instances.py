"""What the plan and people make of a pod, in each shape it can have."""

from __future__ import annotations

from typing import Any

import pytest

from berth_operator.kube import instances
from berth_operator.kube.conditions import timestamp
from berth_operator.kube.instances import Clock, Heard, Trouble
from berth_operator.kube.store import Body
from berth_operator.model import Instance, Place, Ready
from kubekit.bodies import (
    FLEET,
    REVISION,
    STARTED,
    condition,
    deleted,
    ended,
    node,
    pod,
    running,
    unschedulable,
    waiting,
)
from kubekit.clock import START

NOW = START
GONE_S = 30.0
READY = Ready("pod-0.boot", "http://10.0.0.1:8000")


def ago(seconds: float) -> str:
    return timestamp(NOW - seconds)


def seen(body: Body, *, on: Body | None = None, heard: bool = False, owner: str | None = "fleet-1") -> Instance:
    words = {body["metadata"]["uid"]: Heard(instances.start_of(body) or "", READY)} if heard else {}
    return instances.instance(body, on, words, owner, Clock(NOW, GONE_S))


class TestLife:
    """From pending to serving, and what each step says to the plan."""

    def test_a_pod_that_waits_for_a_machine_has_all_the_time(self) -> None:
        instance = seen(unschedulable())
        assert instance == Instance(Place(FLEET, 0, REVISION), "pod-0", NOW, running=False)

    def test_its_time_to_start_begins_on_a_machine(self) -> None:
        assert seen(waiting("ContainerCreating", scheduled=ago(50), since=ago(50))).started_at == NOW - 50

    def test_running_but_not_ready_it_has_no_word(self) -> None:
        instance = seen(running(ready=False, since=ago(90)))
        assert (instance.ready, instance.running, instance.started_at) == (None, True, NOW - 90)

    def test_ready_and_heard_it_serves(self) -> None:
        instance = seen(running(), on=node(), heard=True)
        assert instance.ready == READY
        assert instance.unhealthy_since is None

    def test_heard_and_not_ready_any_more_it_is_sick(self) -> None:
        instance = seen(running(ready=False, since=ago(20)), heard=True)
        assert (instance.ready, instance.unhealthy_since) == (READY, NOW - 20)

    def test_a_word_of_an_earlier_start_is_another_workers(self) -> None:
        body = running(start=ago(5), ready=False, since=ago(6))
        word = Heard(f"containerd://{STARTED}@{STARTED}", READY)
        instance = instances.instance(body, None, {"pod-0": word}, "fleet-1", Clock(NOW, GONE_S))
        assert instance.ready is None

    def test_while_it_starts_again_nothing_runs(self) -> None:
        """What was registered from it is gone for good."""
        body = waiting("CrashLoopBackOff", last={"exitCode": 1})
        assert seen(body, heard=True).running is False


class TestPatience:
    """Whoever has just come knows nothing of the past, and must not kill what has served for days."""

    def test_an_old_pod_whose_worker_ends_has_as_long_to_start_again(self) -> None:
        body = waiting("CrashLoopBackOff", scheduled=ago(9000), since=ago(3))
        assert seen(body).started_at == NOW - 3

    def test_an_old_pod_that_is_unready_for_a_moment_is_not_long_in_starting(self) -> None:
        assert seen(running(scheduled=ago(9000), ready=False, since=ago(4))).started_at == NOW - 4

    def test_an_old_pod_whose_word_nobody_has_is_not_to_blame(self) -> None:
        assert seen(running(scheduled=ago(9000), since=ago(8000))).started_at == NOW


class TestRemoval:
    def test_a_pod_that_was_told_to_end_is_stopping(self) -> None:
        assert seen(deleted(running(), ago(-100)), heard=True).stopping

    def test_so_is_one_of_an_earlier_fleet_of_that_name(self) -> None:
        assert seen(running(owner="fleet-0"), heard=True).stopping
        assert seen(running(owner=None), heard=True).stopping

    def test_and_one_whose_fleet_nobody_wants(self) -> None:
        assert seen(running(), heard=True, owner=None).stopping

    def test_one_that_is_over_is_only_an_object(self) -> None:
        assert instances.ended(ended())
        assert instances.ended(pod(phase="Succeeded"))
        assert not instances.ended(running())


class TestSilentNode:
    """It may serve all the same, until it should have ended long ago."""

    SILENT = node(ready="Unknown", since=ago(40))

    def test_its_pods_are_unreachable_and_sick_since_then(self) -> None:
        instance = seen(running(), on=self.SILENT, heard=True)
        assert instance.unreachable
        assert instance.unhealthy_since == NOW - 40
        assert not instance.given_up

    def test_even_those_that_nobody_has_heard_yet(self) -> None:
        assert seen(waiting("ContainerCreating"), on=self.SILENT).unhealthy_since == NOW - 40

    def test_something_may_run_there(self) -> None:
        assert seen(waiting("CrashLoopBackOff"), on=self.SILENT).running

    @pytest.mark.parametrize(("over_for", "given_up"), [(-10, False), (29, False), (30, True)])
    def test_it_is_given_up_when_its_end_is_overdue(self, over_for: float, given_up: bool) -> None:
        assert seen(deleted(running(), ago(over_for)), on=self.SILENT).given_up is given_up

    def test_on_a_node_that_speaks_its_end_is_waited_for(self) -> None:
        assert not seen(deleted(running(), ago(5000)), on=node()).given_up

    def test_a_node_that_says_it_is_not_ready_is_silent_too(self) -> None:
        assert seen(running(), on=node(ready="False", since=ago(7))).unreachable

    def test_a_node_without_a_word_is_new_and_not_silent(self) -> None:
        fresh = node()
        fresh["status"] = {}
        assert not seen(running(), on=fresh).unreachable


class TestTrouble:
    """Why a pod does not serve, in the cluster's own words."""

    @pytest.mark.parametrize("body", [pod(), running(), running(ready=False), waiting("ContainerCreating"), ended()])
    def test_patience_is_no_trouble(self, body: Body) -> None:
        assert instances.trouble(body, NOW) is None

    def test_unschedulable(self) -> None:
        words = "0/3 nodes are available: 3 Insufficient cpu."
        assert instances.trouble(unschedulable(words), NOW) == Trouble("Unschedulable", words)

    def test_not_looked_at_by_the_scheduler_yet(self) -> None:
        gated = pod(conditions=[condition("PodScheduled", "False", reason="SchedulingGated")])
        assert instances.trouble(gated, NOW) is None

    @pytest.mark.parametrize(("since", "told"), [(59, False), (60, True)])
    def test_nor_by_any_scheduler(self, since: float, *, told: bool) -> None:
        body = pod()
        body["metadata"]["creationTimestamp"] = ago(since)
        body["spec"]["schedulerName"] = "nobody"
        words = "no scheduler has looked at it: is there one called nobody?"
        assert instances.trouble(body, NOW) == (Trouble("Unschedulable", words) if told else None)

    @pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"])
    @pytest.mark.parametrize("init", [False, True])
    def test_the_image_cannot_be_had(self, reason: str, init: bool) -> None:
        found = instances.trouble(waiting(reason, "no such host", init=init), NOW)
        assert found == Trouble("ImagePull", f"{reason}: no such host")

    @pytest.mark.parametrize("reason", ["CreateContainerConfigError", "CreateContainerError", "RunContainerError"])
    def test_something_the_pod_refers_to_is_missing(self, reason: str) -> None:
        found = instances.trouble(waiting(reason, 'secret "worker-token" not found'), NOW)
        assert found == Trouble("PodConfig", f'{reason}: secret "worker-token" not found')

    @pytest.mark.parametrize(
        ("last", "said"),
        [
            (
                {"exitCode": 1, "message": "loading\nberth_worker: no model at /models\n"},
                "exit status 1: berth_worker: no model at /models",
            ),
            ({"exitCode": 137, "reason": "OOMKilled"}, "exit status 137: OOMKilled"),
            ({"exitCode": 139, "message": "  "}, "exit status 139: no last words"),
        ],
    )
    def test_the_worker_ended_before_it_served(self, last: Body, said: str) -> None:
        found = instances.trouble(waiting("CrashLoopBackOff", "back-off 10s", last=last), NOW)
        assert found == Trouble("ModelLoadFailed", said)

    def test_so_it_is_told_while_it_tries_again(self) -> None:
        body = running(ready=False)
        body["status"]["containerStatuses"][0]["lastState"] = {
            "terminated": {"exitCode": 1, "message": "out of memory"}
        }
        assert instances.trouble(body, NOW) == Trouble("ModelLoadFailed", "exit status 1: out of memory")

    def test_once_it_serves_that_is_forgiven(self) -> None:
        body = running(ready=True)
        body["status"]["containerStatuses"][0]["lastState"] = {"terminated": {"exitCode": 1}}
        assert instances.trouble(body, NOW) is None

    def test_a_model_that_cannot_be_fetched(self) -> None:
        body = waiting("CrashLoopBackOff", init=True, last={"exitCode": 2, "message": "no repository acme/none"})
        assert instances.trouble(body, NOW) == Trouble("ModelLoadFailed", "exit status 2: no repository acme/none")

    def test_a_fetch_that_is_done_is_no_trouble(self) -> None:
        body = running(ready=False)
        done = {"name": "fetch", "ready": True, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}
        body["status"]["initContainerStatuses"] = [done]
        assert instances.trouble(body, NOW) is None

    def test_last_words_are_no_log(self) -> None:
        found = instances.trouble(waiting("ErrImagePull", "x" * 5000), NOW)
        assert found is not None
        assert len(found.message) == instances.MESSAGE_MOST

    def test_a_worker_that_served_and_starts_again_is_on_its_way(self) -> None:
        """It was ready until it ended, so it can load its model: nobody has anything to mend."""
        assert instances.trouble(after(began=100, unready=20), NOW) is None

    @pytest.mark.parametrize("unready", [100, 101, 5000])
    def test_one_that_never_served_since_it_began_is_not(self, unready: float) -> None:
        """Unready since its pod is there, or since the run before."""
        found = instances.trouble(after(began=100, unready=unready), NOW)
        assert found == Trouble("ModelLoadFailed", "exit status 137: OOMKilled")

    def test_nor_is_one_that_serves_and_ends_again_and_again(self) -> None:
        body = after(began=100, unready=20)
        body["status"]["containerStatuses"][0]["state"] = {"waiting": {"reason": "CrashLoopBackOff"}}
        assert instances.trouble(body, NOW) == Trouble("ModelLoadFailed", "exit status 137: OOMKilled")

    @pytest.mark.parametrize(("since", "told"), [(59, False), (60, True)])
    def test_a_node_that_cannot_set_it_up(self, since: float, *, told: bool) -> None:
        """As where the worker's token is missing: what is mounted is waited for without a word in the status."""
        body = waiting("ContainerCreating")
        body["status"]["conditions"].append(condition("PodReadyToStartContainers", "False", ago(since)))
        found = instances.trouble(body, NOW)
        assert (found is not None) is told
        if found is not None:
            name = body["metadata"]["name"]
            assert found.reason == "PodConfig"
            assert f"kubectl describe pod {name}" in found.message

    def test_what_comes_after_that_takes_the_time_it_takes(self) -> None:
        body = waiting("ContainerCreating")
        body["status"]["conditions"].append(condition("PodReadyToStartContainers", "True", ago(5000)))
        assert instances.trouble(body, NOW) is None


def after(*, began: float, unready: float) -> Body:
    """Return a pod whose worker runs again; the run before began, and it has been unready, so many seconds ago."""
    body = running(ready=False, since=ago(unready))
    over = {"exitCode": 137, "reason": "OOMKilled", "startedAt": ago(began)}
    body["status"]["containerStatuses"][0]["lastState"] = {"terminated": over}
    return body


@pytest.mark.parametrize(
    ("status", "url"),
    [({}, None), ({"podIP": "10.1.2.3"}, "http://10.1.2.3:8000"), ({"podIP": "fd00::7"}, "http://[fd00::7]:8000")],
)
def test_where_it_listens(status: dict[str, Any], url: str | None) -> None:
    assert instances.url_of(pod(**status)) == url


def test_a_pod_that_is_not_ours_is_no_instance() -> None:
    body = pod()
    body["metadata"]["labels"] = {}
    with pytest.raises(ValueError, match="none of our labels"):
        seen(body)
