"""Kubernetes Events: few, worth reading, and each told once.

An event's name is made from what it says, so whoever tells it again, after a restart or as a second operator, is told
by the API server that it is there already.
"""

from __future__ import annotations

import hashlib
from typing import Literal, NamedTuple

import structlog

from berth_operator.errors import ClusterRefused
from berth_operator.kube.cluster import Cluster
from berth_operator.kube.conditions import timestamp
from berth_operator.kube.store import Body

log = structlog.get_logger("berth_operator.notices")

NAME_MOST = 220
"""Characters of the object's name that go into the event's, which may have 253."""
TEXT_MOST = 1000


class Notice(NamedTuple):
    """What people should read. What makes it another one than the last is its `occasion`, by default the message."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str
    occasion: str = ""
    """Two operators may say the same thing in other words: each knows the names of the pods that it has seen."""


async def tell(cluster: Cluster, about: Body, notice: Notice, now: float) -> None:
    """Tell people something about an object. Where that is not allowed, nothing else is to suffer for it."""
    meta = about["metadata"]
    digest = hashlib.sha256(f"{meta['uid']} {notice.reason} {notice.occasion or notice.message}".encode()).hexdigest()[
        :16
    ]
    at = timestamp(now)
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{meta['name'][:NAME_MOST].rstrip('-.')}.{digest}", "namespace": meta["namespace"]},
        "involvedObject": {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            "name": meta["name"],
            "namespace": meta["namespace"],
            "uid": meta["uid"],
        },
        "type": notice.type,
        "reason": notice.reason,
        "message": notice.message[:TEXT_MOST],
        "source": {"component": "berth-operator"},
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }
    try:
        await cluster.create_event(meta["namespace"], event)
    except ClusterRefused as error:
        log.warning("an event was refused", reason=notice.reason, message=notice.message, error=str(error))
