"""How `berth up` tells of its fleet: JSON lines for programs, sentences for people."""

from __future__ import annotations

import time

import msgspec

from berth_cli import console
from berth_operator.local.events import (
    Event,
    FleetReady,
    GatewayDied,
    GatewayUp,
    Problem,
    RedisDied,
    RedisUp,
    WorkerDied,
    WorkerUp,
)
from berth_operator.local.settings import LocalSettings


class JsonReport:
    """One line an event. The first is the ready line: what came up before is in it."""

    def __init__(self) -> None:
        self._ready = False

    def __call__(self, event: Event) -> None:
        """Print the event."""
        self._ready = self._ready or isinstance(event, FleetReady)
        if self._ready:
            print(msgspec.json.encode(event).decode(), flush=True)


class PlainReport:
    """Lines for a person who watches."""

    def __init__(self, settings: LocalSettings) -> None:
        self._console = console.stdout()
        self._began = time.monotonic()
        self._state_dir = settings.state_dir
        many = f"{settings.workers} worker{'s' * (settings.workers > 1)}"
        self._console.print(f"Starting {settings.model} with {many}; logs are in {settings.state_dir}/logs")

    def __call__(self, event: Event) -> None:
        """Print the event."""
        match event:
            case FleetReady(gateway=gateway):
                self._say("ready", f"after {time.monotonic() - self._began:.1f} s at {gateway}", "bold green")
                self._console.print("Talk to it with `berth chat`, watch it with `berth top`. Ctrl-C ends it.")
            case WorkerUp(id=name, url=url, pid=pid):
                self._say("worker", f"{name} at {url}, pid {pid}", "green")
            case GatewayUp(url=url, pid=pid):
                self._say("gateway", f"at {url}, pid {pid}", "green")
            case RedisUp(url=url, pid=pid):
                self._say("redis", f"at {url}, pid {pid}", "green")
            case WorkerDied(reason=reason) | GatewayDied(reason=reason) | RedisDied(reason=reason):
                self._say("died", reason, "red")
            case Problem(message=message):
                self._say("problem", message, "yellow")

    def _say(self, word: str, text: str, style: str) -> None:
        self._console.print(f"{word:>8}", style=style, end="  ")
        self._console.print(text)
