"""Kopf watches; it decides nothing.

Only event handlers: a handler of any other sort would have Kopf keep finalizers or annotations on the resources, and
nothing of ours may stand between a user and a deletion.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import kopf

from berth_api.crd import GROUP, VERSION
from berth_operator.errors import ClusterUnavailable
from berth_operator.kube.cluster import PLURALS, configuration_of
from berth_operator.kube.labels import OURS
from berth_operator.kube.settings import KubeSettings
from berth_operator.kube.store import Body, Kind, Store

CONNECT_S = 10.0
"""A connection that is not there after so long is tried again."""
REQUEST_S = 60.0
"""For a list of everything."""
LONGEST_PAUSE_S = 5.0
"""Between two tries: who waits for a session's Ready should not wait for this."""


class _NoEssence(kopf.DiffBaseStorage):
    """Nothing to compare an object with: that is for handlers of changes, and costs several copies an event."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        pass


class Pauses(Iterable[float]):
    """Seconds between a try and the next, without end: an API server that comes back after hours is asked again."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((1.0, 1.0, 2.0), itertools.repeat(LONGEST_PAUSE_S))


@dataclass(frozen=True)
class Flags:
    """`began` is set once Kopf runs, and has its own handlers of signals; set `over` and it ends."""

    began: asyncio.Event
    over: asyncio.Event


async def watch(store: Store, settings: KubeSettings, kinds: Iterable[Kind], flags: Flags) -> None:
    """Tell the store of every change of these kinds until it is over. Raises ClusterUnavailable if it ends before."""
    registry = kopf.OperatorRegistry()
    _login(registry, settings.kubeconfig)
    for kind in kinds:
        _handle(registry, store, kind, PLURALS[kind])
    try:
        await kopf.operator(
            registry=registry,
            settings=_settings(),
            namespaces=list(settings.namespaces),
            clusterwide=not settings.namespaces,
            standalone=True,
            ready_flag=flags.began,
            stop_flag=flags.over,
        )
    except Exception as error:
        # Kopf's own errors have the whole answer behind the message.
        why = " ".join(str(next(iter(error.args), "")).split()) or type(error).__name__
        raise ClusterUnavailable(f"the watch has ended: {why}") from error


def _handle(registry: kopf.OperatorRegistry, store: Store, kind: Kind, plural: str) -> None:
    where = (GROUP, VERSION, plural) if kind in ("fleet", "session") else ("", "v1", plural)

    @kopf.on.event(*where, id=f"watch-{plural}", registry=registry)
    async def heard(event: Any, **_: Any) -> None:
        body: Body = dict(event["object"])
        store.heard(kind, body, deleted=event["type"] == "DELETED")


def _login(registry: kopf.OperatorRegistry, kubeconfig: str | None) -> None:
    """Connect as the operator's own calls do; asked again when the API server says that it knows us no more."""

    @kopf.on.login(id="login", registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        found = await configuration_of(kubeconfig)
        authorization: Any = found.get_api_key_with_prefix("BearerToken") or ""
        if asyncio.iscoroutine(authorization):
            authorization = await authorization
        scheme, _space, token = str(authorization).rpartition(" ")
        authority = found.ca_cert_data
        return kopf.ConnectionInfo(
            server=found.host,
            ca_path=found.ssl_ca_cert,
            ca_data=base64.b64encode(authority.encode()) if isinstance(authority, str) else authority,
            insecure=not found.verify_ssl,
            username=found.username or None,
            password=found.password or None,
            scheme=scheme or None,
            token=token or None,
            certificate_path=found.cert_file,
            private_key_path=found.key_file,
        )


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    # What people should read we tell ourselves, once; Kopf's events would repeat its log.
    settings.posting.enabled = False
    # Kinds and namespaces are known, so the right to watch all of them is not needed.
    settings.scanning.disabled = True
    settings.watching.connect_timeout = CONNECT_S
    settings.watching.label_selectors["pods"] = OURS
    settings.networking.connect_timeout = CONNECT_S
    settings.networking.request_timeout = REQUEST_S
    # Kopf gives up after some tries, and with one watch it ends all of them.
    settings.networking.error_backoffs = Pauses()
    settings.queueing.idle_timeout = 1.0
    settings.persistence.diffbase_storage = _NoEssence()
    # Of handlers that we do not have: should one be added, it must not use names that another operator's Kopf uses too.
    settings.persistence.finalizer = f"{GROUP}/never"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=f"kopf.{GROUP}")
    return settings
