"""Server-sent events, cut out of a byte stream: pure, so that any slicing of the stream can be tested."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class ServerEvent:
    """One event. `id` is "" where none was sent."""

    name: str
    data: bytes
    id: str = ""


class EventReader:
    """Feed it bytes as they come. Comments are keep-alives and are left out, as are fields it does not know."""

    def __init__(self) -> None:
        self._rest = b""
        self._name = b"message"
        self._data: list[bytes] = []
        self._id = b""

    def feed(self, data: bytes) -> Iterator[ServerEvent]:
        """Yield the events that `data` completes. Lines end with LF or CRLF."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            event = self._line(line.removesuffix(b"\r"))
            if event is not None:
                yield event

    def _line(self, line: bytes) -> ServerEvent | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            self._name = value
        elif field == b"data":
            self._data.append(value)
        elif field == b"id":
            self._id = value
        return None

    def _dispatch(self) -> ServerEvent | None:
        name, data = self._name, self._data
        self._name, self._data = b"message", []
        if not data:
            return None
        return ServerEvent(name.decode(), b"\n".join(data), self._id.decode())
