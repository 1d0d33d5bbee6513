"""Server-sent events, read as strictly as the contract is written: what is not in it is an error.

Pure: bytes in, events out, so that the reader itself is tested without a server.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

TERMINAL = frozenset({"turn.committed", "turn.aborted", "turn.unknown"})
KNOWN = TERMINAL | {"turn.started", "token", "turn.moved", "turn.restarted"}


class ProtocolError(AssertionError):
    """The server broke the contract of its event stream."""


@dataclass(frozen=True)
class Event:
    """One server-sent event. `at` is the client's monotonic clock when it was complete."""

    name: str
    id: str
    data: dict[str, Any]
    at: float = 0.0

    @property
    def seq(self) -> int:
        return int(self.id.split(":")[1])


def ids_crc(ids: list[int]) -> int:
    """Return the CRC-32 of packed little-endian int32 ids, as event ids carry it."""
    return zlib.crc32(np.asarray(ids, dtype="<i4").tobytes())


class Reader:
    """Cuts a byte stream into events. `feed` may get any slices; lines end with LF or CRLF."""

    def __init__(self) -> None:
        self._rest = b""
        self._fields: dict[str, str] = {}

    def feed(self, data: bytes, at: float = 0.0) -> Iterator[Event]:
        """Yield the events that `data` completes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for raw in lines:
            line = raw.rstrip(b"\r").decode("utf-8")
            if line == "":
                if self._fields:
                    yield self._event(at)
            elif not line.startswith(":"):
                self._field(line)

    def _field(self, line: str) -> None:
        name, colon, value = line.partition(":")
        if not colon or name not in {"event", "id", "data"} or name in self._fields:
            raise ProtocolError(f"unexpected line in the event stream: {line!r}")
        self._fields[name] = value.removeprefix(" ")

    def _event(self, at: float) -> Event:
        fields, self._fields = self._fields, {}
        if fields.keys() != {"event", "id", "data"}:
            raise ProtocolError(f"an event needs event, id and data, this has {sorted(fields)}: {fields}")
        if fields["event"] not in KNOWN:
            raise ProtocolError(f"unknown event {fields['event']!r}")
        return Event(fields["event"], fields["id"], json.loads(fields["data"]), at)


@dataclass
class Transcript:
    """What one client saw of one turn, checked as it comes in."""

    events: list[Event] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    text: str = ""
    turn: str = ""

    def add(self, event: Event) -> None:
        """Take the next event. ProtocolError when it may not follow what came before."""
        if self.terminal is not None:
            raise ProtocolError(f"{event.name} after the terminal {self.terminal.name}")
        self._check_id(event)
        if event.name == "token":
            self.ids += event.data["ids"]
            self.text += event.data["text"]
        elif event.name == "turn.restarted":
            self.ids, self.text = [], ""
        self._check_crc(event)
        self.events.append(event)

    def _check_id(self, event: Event) -> None:
        parts = event.id.split(":")
        if len(parts) != 3 or not parts[1].isdigit():
            raise ProtocolError(f"event id {event.id!r} is not <turn>:<seq>:<crc>")
        self.turn = self.turn or parts[0]
        named = event.data.get("turn", self.turn)
        if parts[0] != self.turn or named != self.turn:
            raise ProtocolError(f"an event of turn {parts[0]} ({named}) in the stream of {self.turn}")
        if self.events and event.seq <= self.events[-1].seq:
            raise ProtocolError(f"event ids go back: {self.events[-1].id} then {event.id}")

    def _check_crc(self, event: Event) -> None:
        if event.id.split(":")[2] != f"{ids_crc(self.ids):08x}":
            raise ProtocolError(f"event id {event.id!r} does not fit the {len(self.ids)} ids so far")

    @property
    def terminal(self) -> Event | None:
        return self.events[-1] if self.events and self.events[-1].name in TERMINAL else None

    @property
    def outcome(self) -> str:
        """`committed`, `aborted` or `unknown`; `broken` when the connection ended first."""
        return "broken" if self.terminal is None else self.terminal.name.removeprefix("turn.")

    def named(self, name: str) -> list[Event]:
        """The events of one name."""
        return [event for event in self.events if event.name == name]
