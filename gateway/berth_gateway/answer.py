"""Reads one HTTP/1.1 answer out of slices of any size. Pure: no socket, no loop."""

from __future__ import annotations

import re

_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [^\r\n]*)?")
_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})(?:[ \t]*;[^\r\n]*)?")
_LINE_BYTES = 1 << 16
"""Longest head, or line between chunks."""
_BODILESS = (204, 304)


class BadAnswer(Exception):
    """What came is no HTTP/1.1 answer."""


class AnswerReader:
    """One answer: `status` is 0 until its head was read, `ended` says that nothing follows.

    `reusable`: the connection may carry another request once this answer ended.
    """

    def __init__(self) -> None:
        self.status = 0
        self.ended = False
        self.reusable = False
        self._rest = b""
        self._chunked = False
        self._left: int | None = 0
        """Bytes of the body, or of its present chunk, still to come; None: all until the connection ends."""
        self._behind = False
        """A chunk's line end is due."""
        self._trailing = False
        """The last chunk was read; its trailer is due."""

    def feed(self, data: bytes) -> bytes:
        """Return what this slice has of the body. Raises `BadAnswer`."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        if not self.status:
            data = self._head(data)
            if not self.status:
                return b""
        return self._chunks(data) if self._chunked else self._plain(data)

    def cut(self) -> bool:
        """The connection ended. Return whether that is how this answer ends."""
        if self.status and not self.ended and not self._chunked and self._left is None:
            self.ended = True
        return self.ended

    def _head(self, data: bytes) -> bytes:
        """Return what is behind the head; empty while it is not complete."""
        while True:
            head, found, data_behind = data.partition(b"\r\n\r\n")
            if not found:
                self._keep(data)
                return b""
            first, *lines = head.split(b"\r\n")
            status = _STATUS.fullmatch(first)
            if status is None:
                raise BadAnswer(f"not a status line: {first[:80]!r}")
            code, data = int(status[2]), data_behind
            if code >= 200:
                break
        headers = {}
        for line in lines:
            name, _, value = line.partition(b":")
            headers[name.lower()] = value.strip()
        self._frame(code, headers)
        self.reusable = status[1] == b"1" and headers.get(b"connection", b"").lower() != b"close"
        self.status = code
        return data

    def _frame(self, code: int, headers: dict[bytes, bytes]) -> None:
        coding, length = headers.get(b"transfer-encoding"), headers.get(b"content-length")
        if code in _BODILESS:
            self.ended = True
        elif coding is not None:
            if coding.lower() != b"chunked":
                raise BadAnswer(f"an unknown transfer encoding: {coding[:80]!r}")
            self._chunked = True
        elif length is not None:
            if not length.isdigit() or len(length) > 15:
                raise BadAnswer(f"not a length: {length[:80]!r}")
            self._left = int(length)
            self.ended = self._left == 0
        else:
            self._left = None

    def _plain(self, data: bytes) -> bytes:
        if self._left is None:
            return data
        body = data[: self._left]
        self._left -= len(body)
        self._end(surplus=len(data) > len(body), ended=self._left == 0)
        return body

    def _chunks(self, data: bytes) -> bytes:
        parts, at = [], 0
        while at < len(data) and not self.ended:
            if self._left:
                part = data[at : at + self._left]
                parts.append(part)
                at += len(part)
                self._left -= len(part)
                continue
            end = data.find(b"\r\n", at)
            if end < 0:
                self._keep(data[at:])
                return b"".join(parts)
            self._line(data[at:end])
            at = end + 2
        self._end(surplus=at < len(data), ended=self.ended)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _line(self, line: bytes) -> None:
        """Take a line between chunks: the end of one, the size of the next, or a trailer."""
        if self._trailing:
            self.ended = not line
        elif self._behind:
            if line:
                raise BadAnswer("a chunk is longer than it said")
            self._behind = False
        else:
            size = _SIZE.fullmatch(line)
            if size is None:
                raise BadAnswer(f"not a chunk's size: {line[:80]!r}")
            self._left = int(size[1], 16)
            self._trailing = self._left == 0
            self._behind = not self._trailing

    def _end(self, *, surplus: bool, ended: bool) -> None:
        self.ended = ended
        if surplus:  # nobody asked for more: whose answer that is cannot be told
            self.reusable = False

    def _keep(self, rest: bytes) -> None:
        if len(rest) > _LINE_BYTES:
            raise BadAnswer(f"a head or line of more than {_LINE_BYTES} bytes")
        self._rest = rest
