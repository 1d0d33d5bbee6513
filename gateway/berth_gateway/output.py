"""What a turn has said so far, in the forms that somebody needs: packed ids, text, and a checksum of the ids."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from berth_api.public import (
    TurnAborted,
    TurnCommitted,
    TurnMoved,
    TurnRestarted,
    TurnStarted,
    TurnToken,
    TurnUnknown,
)
from berth_api.wire import TokenLogprob


class Output:
    """Grows only: what a client was sent is never taken back."""

    def __init__(self) -> None:
        self._packed = bytearray()
        self._text: list[str] = []
        self.logprobs: list[TokenLogprob] = []
        self.crc = 0
        """CRC-32 of the packed ids."""
        self.chars = 0
        """Characters of text."""

    def add(self, packed: bytes, text: str, logprobs: list[TokenLogprob] | None) -> None:
        """Append packed ids, the text they allowed to show, and their logprobs where asked for."""
        self._packed += packed
        self.crc = zlib.crc32(packed, self.crc)
        if text:
            self._text.append(text)
            self.chars += len(text)
        if logprobs:
            self.logprobs += logprobs

    @property
    def packed(self) -> bytes:
        return bytes(self._packed)

    @property
    def count(self) -> int:
        """Output ids so far."""
        return len(self._packed) // 4

    @property
    def text(self) -> str:
        return "".join(self._text)


PublicEvent = TurnStarted | TurnToken | TurnMoved | TurnRestarted | TurnCommitted | TurnAborted | TurnUnknown
Listener = Callable[[PublicEvent, Output], None]
"""Takes each event and the output up to and including it. Must not block."""
