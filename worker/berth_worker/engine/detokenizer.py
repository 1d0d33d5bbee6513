"""Ids to text, one at a time: what is shown is never taken back and never ends inside a character.

A token's text depends on its neighbours (a character may span several tokens, a leading space may be dropped), so each
step decodes a short window: the tokens since the last place where text was whole, and those just before it as context.
Put together, the pieces are what decoding all ids at once gives, as long as the bytes spelt out are UTF-8 (byte-level
tokenizers: whatever the bytes are).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REPLACEMENT: Final = "\ufffd"
WINDOW: Final = 32
"""Tokens without whole text before the window is cut short: a stream of garbage must not cost ever more."""
UNFINISHED: Final = 3
"""Tokens at the end that may belong to an unfinished character of four bytes."""


class Detokenizer:
    """The text of one turn's output. `decode` must be a pure function of its ids."""

    def __init__(self, decode: Callable[[Sequence[int]], str], skipped: frozenset[int]) -> None:
        """Ids in `skipped` have no text."""
        self._decode = decode
        self._skipped = skipped
        self._window: list[int] = []
        self._context = 0
        """Leading ids of the window whose text was whole and shown when they were the last ones."""
        self._shown = 0
        """Characters of the window's text that were shown."""

    def push(self, token: int) -> str:
        """Take the next id; return the text it completes."""
        if token in self._skipped:
            return ""
        self._window.append(token)
        text = self._decode(self._window)
        whole = text.rstrip(REPLACEMENT)
        new = whole[self._shown :]
        if new and whole == text:
            self._window = self._window[self._context :]
            self._context = len(self._window)
            self._shown = len(self._decode(self._window))
            return new
        self._shown = max(self._shown, len(whole))
        return new + self._cut(text) if len(self._window) > WINDOW else new

    def flush(self) -> str:
        """Return what was held back, at the end of the turn."""
        rest = self._decode(self._window)[self._shown :]
        self._shown += len(rest)
        return rest

    def _cut(self, text: str) -> str:
        """Drop leading ids where the window's text falls into two; return what thereby becomes final."""
        for at in range(len(self._window) - 1, len(self._window) - 1 - UNFINISHED, -1):
            head = self._decode(self._window[:at])
            if head + self._decode(self._window[at:]) == text:
                self._window, self._context = self._window[at:], 0
                final, self._shown = text[self._shown : len(head)], max(0, self._shown - len(head))
                return final
        return ""
