"""What the engine asks of a tokenizer, and how a turn's text is held back until it may be shown.

Text is a deterministic function of the ids, token by token: a worker that takes over a turn replays the ids that its
predecessor sent and arrives at the very text that the client has seen, nothing twice and nothing lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class TextStream(Protocol):
    """Incremental detokenization of one turn's output."""

    def push(self, token: int) -> str:
        """Take the next id; return the text it completes (never a part of a character)."""

    def flush(self) -> str:
        """Return what was still held back inside a character."""


class Tokenizer(Protocol):
    """Text to ids and back. Thread-safe: requests are encoded off the engine thread."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the ids of `text`, with BOS and the like only if asked for."""

    def stream(self, *, skip_special_tokens: bool) -> TextStream:
        """Return a detokenizer for one turn."""

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Return the text of `ids`."""


class StopStrings:
    """Finds stop strings in text that arrives in pieces, and holds back what may be the beginning of one."""

    def __init__(self, stops: tuple[str, ...], *, keep_match: bool) -> None:
        self._stops = stops
        self._keep_match = keep_match
        self._held = ""

    def push(self, text: str, *, armed: bool = True) -> tuple[str, str | None]:
        """Take more text; return (what may be shown, the stop string found or None). Not `armed`: find nothing yet."""
        if not self._stops:
            return text, None
        self._held += text
        found = min(
            ((self._held.find(stop), -len(stop), stop) for stop in self._stops if stop in self._held), default=None
        )
        if found is not None and armed:
            at, _, stop = found
            shown = self._held[: at + len(stop)] if self._keep_match else self._held[:at]
            self._held = ""
            return shown, stop
        keep = self._possible_start()
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown, None

    def flush(self) -> str:
        """Return what was held back."""
        shown, self._held = self._held, ""
        return shown

    def _possible_start(self) -> int:
        """Return the length of the longest suffix of the held text that begins a stop string."""
        longest = max((len(stop) - 1 for stop in self._stops), default=0)
        for size in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-size:]) for stop in self._stops):
                return size
        return 0
