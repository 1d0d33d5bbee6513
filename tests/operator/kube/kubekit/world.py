"""The operator between a cluster and a gateway that are a few dictionaries, round by round."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from berth_api.crd import InferenceFleet
from berth_operator.kube.app import Operator
from berth_operator.kube.pods import revision
from berth_operator.kube.queue import KeyedQueue
from berth_operator.kube.settings import KubeSettings, PodSettings, Times
from berth_operator.kube.store import Body, Key
from berth_operator.model import Place
from kubekit.bodies import FLEET, NAMESPACE, fleet, node
from kubekit.clock import Clock, Killed
from kubekit.cluster import FakeCluster
from kubekit.gateways import FakeAdmin

K = TypeVar("K")

PODS = PodSettings("berth/worker:1", "worker-token")

ROUNDS = 120
STEP_S = 1.0
LIST_EVERY = 30
"""Rounds of one second each: as the defaults have it."""


class World:
    """`round` lets a second pass in which all that is due is looked at, one key after the other."""

    def __init__(self, namespaces: tuple[str, ...] = (), **times: float) -> None:
        self.clock = Clock()
        self.cluster = FakeCluster(self.clock)
        self.admin = FakeAdmin(self.clock)
        self.settings = KubeSettings(
            gateways=("http://gateway",),
            admin_token="secret",
            pods=PODS,
            namespaces=namespaces,
            times=Times(**times),
        )
        self.operator = self._operator()
        self.failures: list[Exception] = []
        self._rounds = 0

    @property
    def fleets(self) -> Any:
        return self.operator._fleets

    @property
    def sessions(self) -> Any:
        return self.operator._sessions

    @property
    def store(self) -> Any:
        return self.operator._store

    def kill_operator(self) -> None:
        """Let another operator come, which knows nothing."""
        self.clock.calls_left = None
        self.operator = self._operator()
        self._rounds = 0

    async def round(self, *, watch: bool = True) -> None:
        """Let the watch catch up, ask the gateways, handle all keys, and let a second pass."""
        try:
            await self._round(watch=watch)
        except Killed:
            self.kill_operator()
        self.clock.advance(STEP_S)

    async def _round(self, *, watch: bool) -> None:
        if watch:
            self.cluster.tell(self.store)
        upkeep = self.operator.upkeep
        if self._rounds % LIST_EVERY == 0:
            await self._attempt(upkeep.see_all)
        self._rounds += 1
        await self._attempt(upkeep.ask)
        for queue in self.operator.queues:
            await self._drain(queue)

    async def rounds(self, count: int, **how: bool) -> None:
        for _ in range(count):
            await self.round(**how)

    async def serve(self, *, replicas: int = 1, **spec: Any) -> None:
        """Have a fleet of so many workers that serve."""
        self.add_node()
        self.cluster.put("fleet", fleet(replicas=replicas, **spec))
        await self.rounds(2)
        self.run_pods()
        await self.until(lambda: self.condition("fleet", "tiny").get("reason") == "AllReady")
        await self.rounds(2)

    def pods(self) -> list[str]:
        """Return the names of the pods that nobody has told to end."""
        bodies = self.cluster.all("pod")
        return [body["metadata"]["name"] for body in bodies if "deletionTimestamp" not in body["metadata"]]

    def worker_of(self, name: str) -> str:
        """Return the id under which the worker of a pod is registered; "" where it is not."""
        body = self.cluster.get("pod", name)
        assert body is not None
        prefix = f"{body['metadata']['uid']}."
        return next((id_ for id_ in self.admin.workers_known if id_.startswith(prefix)), "")

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let rounds pass until `condition` holds."""
        for _ in range(ROUNDS):
            if condition():
                return
            await self.round()
        raise AssertionError(f"it has not come in {ROUNDS} rounds")

    # The cluster, as machines and people would have it --------------------------------------------------------------

    def add_node(self, name: str = "node-1") -> None:
        self.cluster.put("node", node(name))

    def run_pods(self) -> None:
        """Have every pod that nobody has run yet scheduled, running and ready, and its worker answering."""
        for pod in self.cluster.all("pod"):
            if pod["status"]["phase"] == "Pending" and "deletionTimestamp" not in pod["metadata"]:
                self.run_pod(pod)

    def run_pod(self, pod: Body, *, boot: str = "boot", ready: bool = True) -> None:
        uid, number = pod["metadata"]["uid"], len(self.admin.answers) + 1
        address, now = f"10.0.0.{number}", self.clock.stamp()
        container = {
            "name": "worker",
            "ready": ready,
            "containerID": f"containerd://{boot}",
            "state": {"running": {"startedAt": now}},
        }
        conditions = [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": now},
            {"type": "Ready", "status": str(ready), "lastTransitionTime": now},
        ]
        pod["spec"]["nodeName"] = "node-1"
        status = {"phase": "Running", "podIP": address, "conditions": conditions, "containerStatuses": [container]}
        self.cluster.put("pod", pod | {"status": status})
        self.admin.answers[f"http://{address}:8000"] = f"{uid}.{boot}"

    def end_pods(self) -> None:
        """Have every pod that was told to end gone."""
        for pod in self.cluster.all("pod"):
            if "deletionTimestamp" in pod["metadata"]:
                self.cluster.remove("pod", pod["metadata"]["name"])

    def status(self, kind: Any, name: str) -> Body:
        body = self.cluster.get(kind, name)
        assert body is not None
        return body.get("status", {})

    def condition(self, kind: Any, name: str, type_: str = "Ready") -> Body:
        found = [each for each in self.status(kind, name).get("conditions", ()) if each["type"] == type_]
        return found[0] if found else {}

    def _operator(self) -> Operator:
        return Operator(self.settings, self.cluster, self.admin, self.clock)  # type: ignore[arg-type]

    async def _drain(self, queue: KeyedQueue[K]) -> None:
        """Handle what is due, and once what was promised for later; what fails is kept in `failures`."""
        for key in list(queue._timers):
            queue.add(key)
        for _ in range(1000):
            if not queue._ready:
                return
            key = queue._ready.popleft()
            queue._waiting.discard(key)
            again = await self._attempt(lambda key=key: queue._handle(key))
            if again is not None:
                queue.add_after(key, again)
        raise AssertionError("the queue does not come to rest")

    async def _attempt(self, call: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await call()
        except Exception as error:
            self.failures.append(error)
            return 0.5


def pod_name(ordinal: int, **spec: Any) -> str:
    """Return the name of a pod of fleet team/tiny with such a spec."""
    resource = InferenceFleet.model_validate(fleet(**spec))
    return str(Place(FLEET, ordinal, revision(resource, PODS, Times().start_s)))


def key(name: str) -> Key:
    return Key(NAMESPACE, name)
