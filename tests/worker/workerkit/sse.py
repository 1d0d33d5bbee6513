"""Reading a turn's stream."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import msgspec

from berth_api.wire import WorkerEvent


async def events(response: aiohttp.ClientResponse) -> AsyncIterator[WorkerEvent]:
    """The events of a turn's stream."""
    async for line in response.content:
        if line.startswith(b"data: "):
            yield msgspec.json.decode(line[6:], type=WorkerEvent)
