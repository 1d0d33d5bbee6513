"""Probes, with their own periods and thresholds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import aiohttp

from clusterkit.api import Object
from clusterkit.node.spec import Unsupported, port_of

Run = Callable[[list[str], float], Awaitable[int]]
"""Runs a command beside the container's process, for so many seconds at most, and returns its exit code."""


async def ask(probe: Object, container: Object, address: str, http: aiohttp.ClientSession, run: Run) -> str:
    """Return "" if the container answers as it should, else what is wrong. Raises Unsupported."""
    timeout_s = float(probe.get("timeoutSeconds", 1))
    if "httpGet" in probe:
        return await _http_get(probe["httpGet"], container, address, http, timeout_s)
    if "tcpSocket" in probe:
        socket = probe["tcpSocket"]
        return await _connect(socket.get("host") or address, port_of(container, socket["port"]), timeout_s)
    if "exec" in probe:
        code = await run(probe["exec"]["command"], timeout_s)
        return f"command exited with {code}" if code else ""
    raise Unsupported(f"probe by {', '.join(probe)}")


async def http_get(get: Object, container: Object, address: str, http: aiohttp.ClientSession) -> None:
    """A hook's request: what it answers is nobody's business."""
    await _http_get(get, container, address, http, timeout_s=None)


async def _http_get(
    get: Object, container: Object, address: str, http: aiohttp.ClientSession, timeout_s: float | None
) -> str:
    host, port = get.get("host") or address, port_of(container, get["port"])
    url = f"{get.get('scheme', 'HTTP').lower()}://{host}:{port}{get.get('path', '/')}"
    headers = {item["name"]: item["value"] for item in get.get("httpHeaders", [])}
    try:
        async with http.get(url, headers=headers, timeout=aiohttp.ClientTimeout(total=timeout_s), ssl=False) as answer:
            return "" if 200 <= answer.status < 400 else f"HTTP probe failed with statuscode: {answer.status}"
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return f'Get "{url}": {error or type(error).__name__}'


async def _connect(host: str, port: int, timeout_s: float) -> str:
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(host, port)
    except (TimeoutError, OSError) as error:
        return f"dial tcp {host}:{port}: {error or 'timeout'}"
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return ""


class Streak:
    """Counts answers of one kind in a row; `verdict` changes when there were enough of them."""

    def __init__(self, probe: Object, *, verdict: bool) -> None:
        self._needed = {True: probe.get("successThreshold", 1), False: probe.get("failureThreshold", 3)}
        self._last, self._count = verdict, 0
        self.verdict = verdict

    def add(self, well: bool) -> bool:
        """Take an answer; return whether enough of its kind have come in a row."""
        self._count = self._count + 1 if well == self._last else 1
        self._last = well
        enough: bool = self._count >= self._needed[well]
        if enough:
            self.verdict = well
        return enough


async def repeat(probe: Object, once: Callable[[], Awaitable[str]], heard: Callable[[str, Streak], bool]) -> bool:
    """Ask over and over until `heard` returns True; return the verdict then.

    `heard` gets each answer ("" for a good one) and the streak so far.
    """
    streak = Streak(probe, verdict=False)
    await asyncio.sleep(float(probe.get("initialDelaySeconds", 0)))
    loop = asyncio.get_running_loop()
    while True:
        began = loop.time()
        if heard(await once(), streak):
            return streak.verdict
        await asyncio.sleep(max(0.0, began + float(probe.get("periodSeconds", 10)) - loop.time()))
