"""What handlers reach for: one object on each application, so that no module has state of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass

from aiohttp import web

from berth_api.errors import RateLimited
from berth_gateway.auth import EVERYONE, PRINCIPAL, KeyRing, Principal
from berth_gateway.backends import Backends
from berth_gateway.keeper import Keeper
from berth_gateway.limits import Limiter
from berth_gateway.models import Models
from berth_gateway.settings import Settings


@dataclass(frozen=True)
class Gateway:
    backends: Backends
    models: Models
    keeper: Keeper
    keys: KeyRing
    limiter: Limiter

    @property
    def settings(self) -> Settings:
        return self.backends.settings


GATEWAY: web.AppKey[Gateway] = web.AppKey("gateway", Gateway)


def gateway_of(request: web.Request) -> Gateway:
    return request.app[GATEWAY]


def caller(request: web.Request) -> Principal:
    """Return who calls, as the authentication middleware found."""
    return request[PRINCIPAL]


def session_of(request: web.Request) -> tuple[str, str]:
    """Return (namespace, name) of the path. Raises `Forbidden` where the key does not belong there."""
    namespace, name = request.match_info["namespace"], request.match_info["name"]
    caller(request).require(namespace)
    return namespace, name


def pace(request: web.Request, namespace: str) -> None:
    """Count a request that begins something, by its key, or by namespace where there are none. Raises `RateLimited`."""
    gateway, principal = gateway_of(request), caller(request)
    name = namespace if principal is EVERYONE else principal.name
    wait_s = gateway.limiter.take(name, principal.rate_limit)
    if wait_s > 0:
        gateway.backends.metrics.refused.labels(RateLimited.type).inc()
        whose = f"namespace {name!r}" if principal is EVERYONE else f"key {name!r}"
        raise RateLimited(f"too many requests of {whose}", retry_after=math.ceil(wait_s))
