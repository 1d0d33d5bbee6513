"""A turn's output as the client sees it: which text may be shown, and when the turn is over."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from berth_api.wire import FinishReason
from berth_worker.engine.text import StopStrings

if TYPE_CHECKING:
    from berth_api.wire import Sampling
    from berth_worker.engine.text import TextStream


class Said(NamedTuple):
    """What one token led to: text to show, and why the turn ended with it (None: it goes on)."""

    text: str
    finish: FinishReason | None


class Answer:
    """Watches the output ids of one turn, resumed ones and new ones alike."""

    def __init__(self, sampling: Sampling, text: TextStream, stop_ids: frozenset[int], max_new_tokens: int) -> None:
        self._sampling = sampling
        self._text = text
        self._stop_ids = stop_ids
        self._strings = StopStrings(sampling.stops, keep_match=sampling.no_stop_trim)
        self._max_new_tokens = max_new_tokens
        self.count = 0
        """Output ids seen."""

    def push(self, token: int) -> Said:
        """Take the next output id. `max_new_tokens` ends a turn only where nothing else does."""
        self.count += 1
        armed = self.count >= self._sampling.min_new_tokens
        stopped = armed and token in self._stop_ids
        if stopped and not self._sampling.no_stop_trim:
            return Said("", FinishReason("stop", token))
        text, matched = self._strings.push(self._text.push(token), armed=armed)
        if stopped:
            return Said(text, FinishReason("stop", token))
        if matched is not None:
            return Said(text, FinishReason("stop", matched))
        return Said(text, self.exhausted())

    def exhausted(self) -> FinishReason | None:
        """Return the finish reason of a turn that may have no further token."""
        return FinishReason("length") if self.count >= self._max_new_tokens else None

    def flush(self, finish: FinishReason) -> str:
        """Return the text still held back at the turn's end; behind a stop string there is none."""
        if isinstance(finish.matched, str):
            return ""
        return self._strings.push(self._text.flush(), armed=False)[0] + self._strings.flush()
