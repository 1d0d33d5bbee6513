"""Decodes a worker's server-sent events from its raw chunks, many at once, without a line reader between."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

from berth_api.wire import WorkerEvent

_decoder: msgspec.json.Decoder[WorkerEvent] = msgspec.json.Decoder(WorkerEvent)


class Garbled(Exception):
    """The worker sent what no worker of this version sends."""


class EventReader:
    """Holds the unfinished tail between chunks, of at most `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[WorkerEvent]:
        """Yield the events completed by this chunk, in order; comments vanish. Raises `Garbled` where one is none."""
        blocks = (self._rest + chunk if self._rest else chunk).split(b"\n\n")
        self._rest = blocks.pop()
        if len(self._rest) > self._limit:
            raise Garbled(f"an event of more than {self._limit} bytes")
        for block in blocks:
            if not block.startswith(b":"):
                yield _decode(block)


def pack(ids: list[int]) -> bytes:
    """Return output ids as packed little-endian int32. Raises `Garbled` for what is no token id."""
    try:
        packed = struct.pack(f"<{len(ids)}i", *ids)
    except struct.error:
        raise Garbled("a token id outside 32 bits") from None
    if ids and min(ids) < 0:
        raise Garbled("a negative token id")
    return packed


def unpack(packed: bytes) -> list[int]:
    """Return packed ids as a list, for the edge where JSON wants one."""
    return list(struct.unpack(f"<{len(packed) // 4}i", packed))


def _decode(block: bytes) -> WorkerEvent:
    if not block.startswith(b"data: "):
        raise Garbled(f"not a data line: {block[:80]!r}")
    try:
        return _decoder.decode(block[6:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Garbled(f"not an event: {error}") from None
