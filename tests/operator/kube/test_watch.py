"""Kopf over HTTP, as we set it up: it tells of every change, writes nothing, and never gives up."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from berth_operator.errors import ClusterUnavailable
from berth_operator.kube.settings import KubeSettings, PodSettings
from berth_operator.kube.store import KINDS, Key, Kind, Store
from berth_operator.kube.watch import LONGEST_PAUSE_S, Flags, Pauses, watch
from kubekit.apiserver import ApiServer
from kubekit.bodies import fleet, node, pod, session
from kubekit.clock import Clock
from kubekit.world import key

PATIENCE_S = 30.0


KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: here
clusters: [{{name: here, cluster: {{server: {url}}}}}]
users: [{{name: me, user: {{token: secret}}}}]
contexts: [{{name: here, context: {{cluster: here, user: me}}}}]
"""


class Watch:
    """A watch under way, and what it has told."""

    def __init__(self, kubeconfig: Path) -> None:
        self.server = ApiServer()
        self.store = Store(lambda *_: None, lambda _, body: self.deleted.append(body["metadata"]["uid"]), Clock())
        self.deleted: list[str] = []
        self.flags = Flags(asyncio.Event(), asyncio.Event())
        self.kubeconfig = kubeconfig
        self.task: asyncio.Task[None]

    @asynccontextmanager
    async def run(self, *kinds: Kind, namespaces: tuple[str, ...] = ()) -> AsyncIterator[asyncio.Task[None]]:
        """Watch while the body runs. Not as a fixture: Kopf ends all tasks that were begun after it."""
        pods = PodSettings("", "")
        settings = KubeSettings((), "", pods, namespaces=namespaces, kubeconfig=str(self.kubeconfig))
        async with self.server.serve() as url:
            self.kubeconfig.write_text(KUBECONFIG.format(url=url))
            self.task = asyncio.create_task(watch(self.store, settings, kinds or KINDS, self.flags))
            try:
                yield self.task
            finally:
                self.flags.over.set()
                await asyncio.gather(self.task, return_exceptions=True)

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                assert not self.task.done(), "the watch has ended"
                await asyncio.sleep(0.01)


@pytest.fixture
def watching(tmp_path: Path) -> Watch:
    return Watch(tmp_path / "kubeconfig")


async def test_it_tells_of_what_is_there_and_of_each_change(watching: Watch) -> None:
    server, store = watching.server, watching.store
    server.objects |= {"inferencefleets": [fleet()], "pods": [pod()], "nodes": [node()]}
    async with watching.run():
        await watching.until(lambda: all(server.watched(each) for each in ("streamingsessions", "pods", "nodes")))
        await watching.until(lambda: [len(store.keys(kind)) for kind in KINDS] == [1, 0, 1, 1])
        assert watching.flags.began.is_set()

        server.tell("streamingsessions", "ADDED", session(version=101))
        await watching.until(lambda: store.get("session", key("alice")))
        server.tell("streamingsessions", "MODIFIED", session(version=102, suspend=True))
        await watching.until(lambda: store.get("session", key("alice"))["spec"].get("suspend"))  # type: ignore[index]
        server.tell("streamingsessions", "DELETED", session(version=103))
        await watching.until(lambda: store.get("session", key("alice")) is None)
        await watching.until(lambda: watching.deleted == ["session-1"])
    assert store.get("node", Key("", "node-1")) is not None
    assert server.writes() == [], "no finalizer, no annotation, no event of Kopf's own"


async def test_it_asks_for_nothing_that_it_was_not_told_to_watch(watching: Watch) -> None:
    server = watching.server
    async with watching.run("fleet", "session", "pod", namespaces=("team",)):
        await watching.until(
            lambda: all(server.watched(each) for each in ("inferencefleets", "streamingsessions", "pods"))
        )
    listed = {path for _, path in server.asked if path.rpartition("/")[2] in server.objects}
    assert listed == {
        "/apis/berth.dev/v1alpha1/namespaces/team/inferencefleets",
        "/apis/berth.dev/v1alpha1/namespaces/team/streamingsessions",
        "/api/v1/namespaces/team/pods",
    }


async def test_an_api_server_that_cannot_just_now_is_asked_again(
    watching: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More often than Kopf would by itself, which would then end all watches."""
    monkeypatch.setattr(Pauses, "__iter__", lambda _: itertools.repeat(0.001))
    watching.server.refusals["pods"] = [503, 500, 429, 403] * 10
    watching.server.objects["pods"] = [pod()]
    async with watching.run():
        await watching.until(lambda: watching.store.keys("pod"))


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (LookupError("no such resource", {"kind": "Status", "code": 404}), "no such resource"),
        (RuntimeError("it has\nfailed"), "it has failed"),
        (RuntimeError(), "RuntimeError"),
    ],
    ids=["with the whole answer", "on two lines", "speechless"],
)
async def test_a_watch_that_ends_by_itself_says_why(
    watching: Watch, monkeypatch: pytest.MonkeyPatch, error: Exception, why: str
) -> None:
    """The definitions of the resources were taken away, for one."""

    async def fail(**_: Any) -> None:
        raise error

    monkeypatch.setattr("berth_operator.kube.watch.kopf.operator", fail)
    settings = KubeSettings((), "", PodSettings("", ""))
    with pytest.raises(ClusterUnavailable, match=f"the watch has ended: {why}$"):
        await watch(watching.store, settings, KINDS, watching.flags)


def test_pauses_have_no_end_and_begin_anew_for_each_request() -> None:
    pauses = Pauses()
    for _ in range(2):
        assert list(itertools.islice(pauses, 5)) == [1.0, 1.0, 2.0, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
