"""Reads one HTTP/1.1 answer out of slices of any size, by llhttp. No socket, no loop."""

from __future__ import annotations

import httptools

HEAD_BYTES = 1 << 16
"""The longest head."""


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
        self._parser = httptools.HttpResponseParser(self)
        self._head_bytes = 0
        self._body: list[bytes] = []
        self._framed = False
        """Something in the answer itself tells where it ends."""

    def feed(self, data: bytes) -> bytes:
        """Return what this slice has of the body. Raises `BadAnswer`."""
        if self.ended:
            self.reusable = False
            return b""
        if not self.status:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self.ended:
                raise BadAnswer(str(error)) from None
            self.reusable = False  # the error lies behind it
        if not self.status and self._head_bytes > HEAD_BYTES:
            raise BadAnswer(f"a head of more than {HEAD_BYTES} bytes")
        body, self._body = self._body, []
        return body[0] if len(body) == 1 else b"".join(body)

    def cut(self) -> bool:
        """The connection ended. Return whether that is how this answer ends."""
        if self.status and not self._framed:
            self.ended = True
        return self.ended

    # What the parser calls ------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.ended:  # nobody asked for more: whose answer that is cannot be told
            self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        del value
        self._framed = self._framed or name.lower() in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        if not self.ended and self._parser.get_status_code() >= 200:
            self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        if not self.ended:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self.status and not self.ended:  # or it was an interim answer
            self.ended = True
            self.reusable = self._parser.should_keep_alive()
