"""What a node and its pods have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from clusterkit.api import Api
from clusterkit.node.addresses import Addresses
from clusterkit.node.settings import Image, Times

Tell = Callable[[str, str], None]
"""Takes a reason and a message: an event of Kubernetes."""


def _set() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@dataclass(frozen=True)
class Site:
    """One node's insides. `images` is live: a test may add one while a pod waits for it."""

    name: str
    api: Api
    http: aiohttp.ClientSession
    images: Mapping[str, Image]
    times: Times
    folder: Path
    addresses: Addresses
    connected: asyncio.Event = field(default_factory=_set)
    """Not set: the network is cut; nothing is read from the API server, nothing told to it."""
    powered: asyncio.Event = field(default_factory=_set)
    """Not set: the machine is off; nothing starts."""
    trouble: list[BaseException] = field(default_factory=list)
    """Faults of the stand-in itself, which must fail the test that ran on it."""

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Start a task whose unexpected end is kept in `trouble`."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._note)
        return task

    def _note(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            error.add_note(f"in {task.get_name()}")
            self.trouble.append(error)
