"""A turn's public events on their way to one client, from where that client left off."""

from __future__ import annotations

import msgspec

from berth_api.public import EVENT_NAMES, TurnAborted, TurnCommitted, TurnRestarted, TurnToken, TurnUnknown
from berth_gateway.events import unpack
from berth_gateway.output import Output, PublicEvent
from berth_gateway.sse import ClientStream, EventId, frame

_encoder = msgspec.json.Encoder()


class EventWriter:
    """A listener of a turn. With `seen` (the client's Last-Event-ID) it sends only what is new.

    A rerun that reaches the ids the client saw goes on behind them; one that differs says `turn.restarted` first. Until
    it got there its tokens are held, and other events carry the client's own position.
    """

    def __init__(self, stream: ClientStream, turn: str, seen: EventId | None = None) -> None:
        self._stream = stream
        self._seen = seen
        self._at = seen or EventId(turn, same=-1)

    def __call__(self, event: PublicEvent, output: Output) -> None:
        if self._seen is not None:
            self._catch_up(self._seen, event, output)
        elif isinstance(event, TurnToken):
            self._token(event, output)
        else:
            self._send_here(event)
        if isinstance(event, TurnCommitted | TurnAborted | TurnUnknown):
            self._stream.end()

    def _catch_up(self, seen: EventId, event: PublicEvent, output: Output) -> None:
        reached = output.count >= seen.ids
        if isinstance(event, TurnToken) and not reached:
            return
        if isinstance(event, TurnToken | TurnCommitted) and (not reached or not seen.saw(output.packed)):
            self._at = EventId(seen.turn, life=seen.life + 1, same=-1)
            self._send_here(TurnRestarted("the rerun says something else"))
            self._rest(output)
            self._seen = None
        elif isinstance(event, TurnToken):
            self._rest(output)
            self._seen = None
        if not isinstance(event, TurnToken):
            self._send_here(event)

    def _token(self, event: TurnToken, output: Output) -> None:
        if output.chars - len(event.text) == self._at.chars:
            self._send(event, output.count, output.chars, output.crc)
        else:  # the client saw text that this run shows later
            self._rest(output, event)

    def _rest(self, output: Output, event: TurnToken | None = None) -> None:
        """Send what the output has beyond the client's position."""
        ids = event.ids if event is not None else unpack(output.packed[4 * self._at.ids :])
        text = output.text[self._at.chars :]
        if ids or text:
            logprobs = output.logprobs[-len(ids) :] if output.logprobs and ids else None
            chars = max(output.chars, self._at.chars)
            self._send(TurnToken(ids, text, logprobs), output.count, chars, output.crc)

    def _send_here(self, event: PublicEvent) -> None:
        """Send what brings the client no further."""
        self._send(event, self._at.ids, self._at.chars, self._at.crc)

    def _send(self, event: PublicEvent, ids: int, chars: int, crc: int) -> None:
        at = self._at
        same = at.same + 1 if ids == at.ids and chars == at.chars else 0
        self._at = EventId(at.turn, ids, chars, crc, at.life, same)
        self._stream.put(frame(EVENT_NAMES[type(event)], str(self._at), _encoder.encode(event)))
