"""What `berth top` asks a worker itself: how its KV pool stands."""

from __future__ import annotations

import aiohttp
import msgspec
from msgspec import Struct

from berth_api.wire import VERSION_HEADER, WIRE_VERSION, WORKER_HEADER, WorkerInfo

_TIMEOUT_S = 2.0


class Rows(Struct, frozen=True):
    free: int
    total: int


class Memory(Struct, frozen=True):
    """The KV pool, in tokens."""

    available: int
    evictable: int
    protected: int
    session_held: int
    uncached: int
    total: int
    rows: Rows


class ServerInfo(Struct, frozen=True):
    """The parts of /get_server_info that are shown."""

    memory: Memory
    berth: WorkerInfo


async def server_info(http: aiohttp.ClientSession, url: str, worker_id: str, token: str) -> ServerInfo | None:
    """Return how the worker stands; None when it does not answer."""
    headers = {
        "Authorization": f"Bearer {token}",
        WORKER_HEADER: worker_id,
        VERSION_HEADER: str(WIRE_VERSION),
    }
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    try:
        async with http.get(
            f"{url}/get_server_info", headers=headers, timeout=timeout, allow_redirects=False
        ) as answer:
            if answer.status != 200:
                return None
            return msgspec.json.decode(await answer.read(), type=ServerInfo)
    except (aiohttp.ClientError, TimeoutError, OSError, msgspec.MsgspecError):
        return None
