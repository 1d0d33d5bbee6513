"""The API server: the few calls the operator makes, on plain dictionaries.

Writes carry what they are meant for: deletions a pod's uid, statuses the version of the object that was judged. None
hits an object that was made again under the same name, nor one that somebody has changed since.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
from kubernetes.aio import client, config

from berth_api.crd import GROUP, VERSION
from berth_operator.errors import ClusterConflict, ClusterRefused, ClusterUnavailable
from berth_operator.kube.labels import OURS
from berth_operator.kube.store import Body, Kind, Listing

ROOTS: dict[Kind, str] = {
    "fleet": f"/apis/{GROUP}/{VERSION}",
    "session": f"/apis/{GROUP}/{VERSION}",
    "pod": "/api/v1",
    "node": "/api/v1",
}
NOT_FOUND = 404
PLURALS: dict[Kind, str] = {"fleet": "inferencefleets", "session": "streamingsessions", "pod": "pods", "node": "nodes"}


async def configuration_of(kubeconfig: str | None) -> client.Configuration:
    """Return how to connect: as a kubeconfig says, as the pod's service account does, or as the user's own does.

    Raises ClusterUnavailable when there is none of these.
    """
    configuration = client.Configuration()
    try:
        if kubeconfig is not None:
            await config.load_kube_config(kubeconfig, client_configuration=configuration)
        else:
            try:
                config.load_incluster_config(configuration)
            except config.ConfigException:
                await config.load_kube_config(client_configuration=configuration)
    except Exception as error:  # of a file that makes no sense the library says so in many ways
        why = " ".join(str(error).split()) or type(error).__name__
        raise ClusterUnavailable(f"no way to reach a cluster: {why}") from error
    return configuration


@asynccontextmanager
async def connected(configuration: client.Configuration, timeout_s: float) -> AsyncIterator[Cluster]:
    """Hold connections for as long as the body runs."""
    # A kubeconfig names its proxy itself. To look for one in the environment costs two threads' hand-over a request.
    configuration.client_session_kwargs = {"trust_env": False}
    async with client.ApiClient(configuration) as api:
        yield Cluster(api, timeout_s)


class Cluster:
    """Calls raise ClusterUnavailable (ask again), ClusterConflict (409) or ClusterRefused (it will not help to ask)."""

    def __init__(self, api: client.ApiClient, timeout_s: float) -> None:
        self._api = api
        self._timeout_s = timeout_s

    async def list(self, kind: Kind, namespace: str | None) -> Listing:
        """Return all of a kind as they are now, in one namespace or all; of pods, those of workers."""
        query = [("labelSelector", OURS)] if kind == "pod" else []
        try:
            found = await self._ask("GET", _path(kind, namespace), query=query)
        except ClusterRefused as error:
            if error.status != NOT_FOUND:
                raise
            why = f"the API server knows no {PLURALS[kind]}: are the custom resources installed (crds/)?"
            raise ClusterRefused(why, status=NOT_FOUND) from error
        return Listing(int(found["metadata"]["resourceVersion"]), found["items"])

    async def create_pod(self, namespace: str, pod: Body) -> Body:
        """ClusterConflict: there is one of that name."""
        made: Body = await self._ask("POST", _path("pod", namespace), pod)
        return made

    async def delete_pod(self, namespace: str, name: str, *, uid: str, grace_s: int | None = None) -> None:
        """End a pod, orderly by default. One that is not there any more, itself, is fine."""
        options: Body = {"preconditions": {"uid": uid}}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        try:
            await self._ask("DELETE", _path("pod", namespace, name), options)
        except ClusterRefused as error:
            if error.status not in (NOT_FOUND, 409):
                raise

    async def patch_status(self, kind: Kind, body: Body, status: Body) -> Body:
        """Set the members of the object's status; None removes one. ClusterConflict: it is not as in `body` any more.

        The API server passes over a uid in a status's patch, but not over the version.
        """
        meta = body["metadata"]
        patch = {"metadata": {"resourceVersion": meta["resourceVersion"]}, "status": status}
        path = f"{_path(kind, meta['namespace'], meta['name'])}/status"
        written: Body = await self._ask("PATCH", path, patch)
        return written

    async def create_event(self, namespace: str, event: Body) -> bool:
        """Tell people something; False: an event of that name is there already."""
        try:
            await self._ask("POST", f"/api/v1/namespaces/{namespace}/events", event)
        except ClusterConflict:
            return False
        return True

    async def _ask(self, method: str, path: str, body: Body | None = None, query: Any = ()) -> Any:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/merge-patch+json" if method == "PATCH" else "application/json"
        request = await self._api.param_serialize(
            method, path, query_params=list(query), header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._api.call_api(*request)
                content = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            why = str(error) or type(error).__name__
            raise ClusterUnavailable(f"the API server does not answer: {why}") from error
        if answer.status < 300:
            return msgspec.json.decode(content)  # a list of a thousand objects is megabytes: several times the speed
        raise refusal(answer.status, content)


def _path(kind: Kind, namespace: str | None, name: str | None = None) -> str:
    """Names are the API server's own or RFC 1123, so none needs quoting."""
    scope = f"/namespaces/{namespace}" if namespace and kind != "node" else ""
    return f"{ROOTS[kind]}{scope}/{PLURALS[kind]}" + (f"/{name}" if name else "")


def refusal(status: int, content: bytes) -> ClusterUnavailable | ClusterRefused:
    """Return the error that an answer of the API server stands for."""
    try:
        message = str(json.loads(content)["message"])
    except (ValueError, KeyError, TypeError):
        message = f"it answered {status}"
    if status == 429 or status >= 500:
        return ClusterUnavailable(message)
    return ClusterConflict(message, status=status) if status == 409 else ClusterRefused(message, status=status)
