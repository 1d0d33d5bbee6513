"""What a local fleet tells the world about itself: one line each with `berth up --json`."""

from __future__ import annotations

from msgspec import Struct

from berth_operator.local.state_dir import WorkerEntry


class FleetReady(Struct, frozen=True, tag="ready", tag_field="event"):
    """All parts are up and the fleet answers. URLs are base URLs without a trailing slash."""

    gateway: str
    gateways: list[str]
    admin: str
    admins: list[str]
    redis: str
    workers: list[WorkerEntry]
    state_dir: str


class WorkerUp(Struct, frozen=True, tag="worker", tag_field="event"):
    """A worker is ready; it has not been given a session yet."""

    id: str
    url: str
    pid: int


class WorkerDied(Struct, frozen=True, tag="worker_died", tag_field="event"):
    """`id` is None for one that was never ready."""

    id: str | None
    pid: int
    reason: str


class GatewayUp(Struct, frozen=True, tag="gateway", tag_field="event"):
    url: str
    admin: str
    pid: int


class GatewayDied(Struct, frozen=True, tag="gateway_died", tag_field="event"):
    url: str | None
    pid: int
    reason: str


class RedisUp(Struct, frozen=True, tag="redis", tag_field="event"):
    url: str
    pid: int


class RedisDied(Struct, frozen=True, tag="redis_died", tag_field="event"):
    url: str
    pid: int
    reason: str


class Problem(Struct, frozen=True, tag="problem", tag_field="event"):
    """Something a person should know; the fleet goes on."""

    message: str


Event = FleetReady | WorkerUp | WorkerDied | GatewayUp | GatewayDied | RedisUp | RedisDied | Problem
