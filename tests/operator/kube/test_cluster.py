"""The calls to the API server as they go over the wire, and what its refusals become."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio import client

from berth_operator.errors import ClusterConflict, ClusterRefused, ClusterUnavailable
from berth_operator.kube.cluster import Cluster, configuration_of, connected, refusal
from kubekit.bodies import pod, session


class Api:
    """Answers everything with one response, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answer: Callable[[], web.Response] = lambda: web.json_response({})
        self.asked: list[tuple[str, str, str | None, Any]] = []
        self.slow = False

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        asked = (request.method, request.raw_path, request.content_type if body else None)
        self.asked.append((*asked, json.loads(body) if body else None))
        if self.slow:
            await asyncio.Event().wait()
        return self.answer()

    def refuses(self, status: int, message: str = "no") -> None:
        self.answer = lambda: web.json_response({"kind": "Status", "message": message}, status=status)


@pytest_asyncio.fixture
async def api() -> AsyncIterator[Api]:
    return Api()


@pytest_asyncio.fixture
async def cluster(api: Api) -> AsyncIterator[Cluster]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", api.handle)
    async with TestServer(app, host="127.0.0.1") as server:
        configuration = client.Configuration(host=f"http://127.0.0.1:{server.port}")
        async with connected(configuration, timeout_s=5.0) as made:
            yield made


async def test_lists_workers_pods_only(api: Api, cluster: Cluster) -> None:
    api.answer = lambda: web.json_response({"metadata": {"resourceVersion": "7"}, "items": [pod()]})
    listing = await cluster.list("pod", "team")
    assert (listing.version, listing.bodies) == (7, [pod()])
    (method, path, _, _) = api.asked[0]
    assert method == "GET"
    assert path.startswith("/api/v1/namespaces/team/pods?labelSelector=app.kubernetes.io/managed-by%3Dberth-operator")


async def test_nodes_are_listed_everywhere_and_sessions_by_their_group(api: Api, cluster: Cluster) -> None:
    api.answer = lambda: web.json_response({"metadata": {"resourceVersion": "7"}, "items": []})
    await cluster.list("node", "team")
    await cluster.list("session", None)
    assert [path for _, path, _, _ in api.asked] == ["/api/v1/nodes", "/apis/berth.dev/v1alpha1/streamingsessions"]


async def test_resources_that_nobody_has_installed_are_named(api: Api, cluster: Cluster) -> None:
    """A namespace that is not there has an empty list; only a kind that is unknown has none."""
    api.answer = lambda: web.Response(status=404, text="404 page not found")
    with pytest.raises(ClusterRefused, match=r"knows no inferencefleets.*crds/"):
        await cluster.list("fleet", None)


async def test_a_status_is_written_to_the_version_that_was_judged(api: Api, cluster: Cluster) -> None:
    """The API server passes over a uid here, so the version must keep a write from an object made anew."""
    await cluster.patch_status("session", session(version=41), {"phase": "Bound", "worker": None})
    assert api.asked == [
        (
            "PATCH",
            "/apis/berth.dev/v1alpha1/namespaces/team/streamingsessions/alice/status",
            "application/merge-patch+json",
            {"metadata": {"resourceVersion": "41"}, "status": {"phase": "Bound", "worker": None}},
        )
    ]


async def test_a_pod_is_deleted_by_its_uid(api: Api, cluster: Cluster) -> None:
    await cluster.delete_pod("team", "tiny-1", uid="u1")
    await cluster.delete_pod("team", "tiny-1", uid="u1", grace_s=0)
    assert [body for _, _, _, body in api.asked] == [
        {"preconditions": {"uid": "u1"}},
        {"preconditions": {"uid": "u1"}, "gracePeriodSeconds": 0},
    ]


@pytest.mark.parametrize("status", [404, 409])
async def test_a_pod_that_is_gone_or_another_one_is_deleted_already(api: Api, cluster: Cluster, status: int) -> None:
    api.refuses(status)
    await cluster.delete_pod("team", "tiny-1", uid="u1")


async def test_a_deletion_that_is_not_allowed_is_said(api: Api, cluster: Cluster) -> None:
    api.refuses(403, "pods is forbidden")
    with pytest.raises(ClusterRefused, match="pods is forbidden") as caught:
        await cluster.delete_pod("team", "tiny-1", uid="u1")
    assert caught.value.status == 403


async def test_an_event_that_is_there_is_told_already(api: Api, cluster: Cluster) -> None:
    assert await cluster.create_event("team", {"metadata": {"name": "e"}}) is True
    api.refuses(409)
    assert await cluster.create_event("team", {"metadata": {"name": "e"}}) is False


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (429, ClusterUnavailable),
        (500, ClusterUnavailable),
        (503, ClusterUnavailable),
        (409, ClusterConflict),
        (403, ClusterRefused),
        (422, ClusterRefused),
    ],
)
def test_what_may_pass_is_asked_again(status: int, kind: type[Exception]) -> None:
    error = refusal(status, b'{"message": "why"}')
    assert type(error) is kind
    assert str(error) == "why"


def test_an_answer_that_is_no_status_is_told_by_its_number() -> None:
    assert str(refusal(502, b"<html>")) == "it answered 502"
    assert str(refusal(500, b'["message"]')) == "it answered 500"


async def test_an_api_server_that_is_silent_is_unavailable_and_named(api: Api, cluster: Cluster) -> None:
    api.slow = True
    cluster._timeout_s = 0.05
    with pytest.raises(ClusterUnavailable, match="does not answer: TimeoutError"):
        await cluster.list("session", None)


async def test_an_api_server_that_is_gone_is_unavailable() -> None:
    async with connected(client.Configuration(host="http://127.0.0.1:1"), 5.0) as cluster:
        with pytest.raises(ClusterUnavailable, match="Cannot connect"):
            await cluster.list("session", None)


@pytest.mark.parametrize("content", [None, "", "[]", "no: [yaml", "apiVersion: v1\nkind: Config\ncurrent-context: x\n"])
async def test_a_kubeconfig_that_is_none_is_told_in_one_line(tmp_path: Any, content: str | None) -> None:
    path = tmp_path / "config"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ClusterUnavailable, match="no way to reach a cluster") as caught:
        await configuration_of(str(path))
    assert "\n" not in str(caught.value)
