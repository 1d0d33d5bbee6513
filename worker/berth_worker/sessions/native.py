"""Sessions that clients open on the worker itself (/open_session): no gateway, no ledger, so they live here.

Committed ids are the single source of truth; KV may vanish at any time and changes nothing here. One turn at a time: it
is in flight from its acceptance (queued counts) to its end, and nothing but that turn may end it.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from berth_api.errors import InvalidRequest, NoSuchSession

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(slots=True, eq=False)
class NativeSession:
    """One open session. `ids` (int32) are committed; `capacity` bounds history + input + output, in tokens."""

    id: str
    capacity: int
    timeout_s: float | None
    idle_since: float
    ids: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    in_flight: bool = False
    closing: bool = False


class NativeSessions:
    """The registry. `now` is any monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._open: dict[str, NativeSession] = {}

    def __len__(self) -> int:
        return len(self._open)

    def open(self, session_id: str | None, capacity: int, timeout_s: float | None, now: float) -> str:
        """Open a session and return its id. Raises `InvalidRequest` if it is open already."""
        name = session_id if session_id is not None else uuid.uuid4().hex
        if name in self._open:
            raise InvalidRequest(f"session {name!r} is open already", field="session_id")
        self._open[name] = NativeSession(name, capacity, timeout_s, idle_since=now)
        return name

    def ready(self, session_id: str) -> NativeSession:
        """Return a session that may take a turn now. Raises `InvalidRequest` if it may not; changes nothing."""
        session = self._open.get(session_id)
        if session is None:
            raise InvalidRequest(f"session {session_id!r} is not open", field="session_params.id")
        if session.closing:
            raise InvalidRequest(f"session {session_id!r} is closing", field="session_params.id")
        if session.in_flight:
            raise InvalidRequest(f"session {session_id!r} has a turn in flight", field="session_params.id")
        return session

    def begin(self, session_id: str) -> None:
        """A turn was accepted."""
        self._open[session_id].in_flight = True

    def end(self, session_id: str, ids: NDArray[np.int32] | None, now: float) -> bool:
        """The turn ended; `ids` is the new history, None if it was aborted. Say whether that closed the session."""
        session = self._open[session_id]
        session.in_flight = False
        session.idle_since = now
        if ids is not None:
            session.ids = ids
        if session.closing:
            del self._open[session_id]
        return session.closing

    def close(self, session_id: str) -> bool:
        """Close, at once (True) or when the running turn ends (False). Raises `NoSuchSession` if it is not open."""
        session = self._open.get(session_id)
        if session is None:
            raise NoSuchSession(f"session {session_id!r} is not open", field="session_id")
        session.closing = True
        if not session.in_flight:
            del self._open[session_id]
        return not session.in_flight

    def reap(self, now: float) -> list[str]:
        """Close the sessions that were idle for longer than their timeout; return their ids."""
        expired = [
            session.id
            for session in self._open.values()
            if session.timeout_s is not None and not session.in_flight and now - session.idle_since > session.timeout_s
        ]
        for session_id in expired:
            del self._open[session_id]
        return expired
