"""Sessions that clients open on the worker itself (/open_session): no gateway, no ledger, so they live here.

Committed ids are the single source of truth; KV may vanish at any time and changes nothing here. A turn is in flight
from its acceptance (queued counts) to its end, and nothing but that turn may end it. A streaming session has one
history and takes one turn at a time; SGLang's older kind has a tree of them (`branches`) and takes any number at once.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from berth_api.errors import InvalidRequest, NoSuchSession
from berth_worker.sessions.branches import PLAIN, Branches

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from berth_worker.sessions.branches import Branch, Place


@dataclass(slots=True, eq=False)
class NativeSession:
    """One open session. `capacity` bounds history + input + output of a turn, in tokens."""

    id: str
    capacity: int
    timeout_s: float | None
    idle_since: float
    tree: Branches | None = None
    """The requests of a session that does not stream; None on one that does."""
    ids: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    """int32, what a streaming session has committed."""
    in_flight: bool = False
    """A streaming session's turn is."""
    closing: bool = False

    @property
    def busy(self) -> bool:
        """Some turn is in flight."""
        return self.in_flight or (self.tree is not None and self.tree.running > 0)


@dataclass(frozen=True, slots=True, eq=False)
class NativeStart:
    """Where a turn of `session` begins: behind `ids` (int32); `place`: in the tree, None on a streaming session."""

    session: NativeSession
    ids: NDArray[np.int32]
    place: Place | None

    @property
    def aborted(self) -> tuple[str, ...]:
        """Rids of the session's requests in flight that the turn replaces."""
        return self.place.aborted if self.place is not None else ()


@dataclass(frozen=True, slots=True, eq=False)
class NativeTurn:
    """A turn in flight: its session, its place if that has a tree, and the length of its whole prompt."""

    session: NativeSession
    place: Place | None
    prompt: int


class NativeSessions:
    """The registry. `now` is any monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._open: dict[str, NativeSession] = {}

    def __len__(self) -> int:
        return len(self._open)

    def open(
        self, session_id: str | None, capacity: int, timeout_s: float | None, now: float, *, streaming: bool = True
    ) -> str:
        """Open a session and return its id. Raises `InvalidRequest` if it is open already."""
        name = session_id if session_id is not None else uuid.uuid4().hex
        if name in self._open:
            raise InvalidRequest(f"session {name!r} is open already", field="session_id")
        tree = None if streaming else Branches()
        self._open[name] = NativeSession(name, capacity, timeout_s, idle_since=now, tree=tree)
        return name

    def ready(self, session_id: str, rid: str = "", branch: Branch = PLAIN) -> NativeStart:
        """Return where the turn `rid` begins, if it may now. Raises `InvalidRequest` if not; changes nothing."""
        session = self._open.get(session_id)
        if session is None:
            raise InvalidRequest(f"session {session_id!r} is not open", field="session_params.id")
        if session.closing:
            raise InvalidRequest(f"session {session_id!r} is closing", field="session_params.id")
        if session.tree is not None:
            place = session.tree.place(rid, branch)
            return NativeStart(session, place.history, place)
        _check_streaming(branch)
        if session.in_flight:
            raise InvalidRequest(f"session {session_id!r} has a turn in flight", field="session_params.id")
        return NativeStart(session, session.ids, None)

    def begin(self, start: NativeStart) -> None:
        """A turn was accepted, and those that it replaces have ended."""
        if start.session.tree is not None and start.place is not None:
            start.session.tree.begin(start.place)
        else:
            start.session.in_flight = True

    def end(self, turn: NativeTurn, ids: NDArray[np.int32] | None, now: float) -> bool:
        """The turn ended; `ids` is the new history, None if it was aborted. Say whether that closed the session."""
        session = turn.session
        session.idle_since = now
        if session.tree is not None and turn.place is not None:
            session.tree.end(turn.place.rid, ids, turn.prompt)
        else:
            session.in_flight = False
            session.ids = ids if ids is not None else session.ids
        closed = session.closing and not session.busy
        if closed:
            del self._open[session.id]
        return closed

    def close(self, session_id: str) -> bool:
        """Close, at once (True) or when the last turn ends (False). Raises `NoSuchSession` if it is not open."""
        session = self._open.get(session_id)
        if session is None:
            raise NoSuchSession(f"session {session_id!r} is not open", field="session_id")
        session.closing = True
        if not session.busy:
            del self._open[session_id]
        return not session.busy

    def reap(self, now: float) -> list[str]:
        """Close the sessions that were idle for longer than their timeout; return their ids."""
        expired = [
            session.id
            for session in self._open.values()
            if session.timeout_s is not None and not session.busy and now - session.idle_since > session.timeout_s
        ]
        for session_id in expired:
            del self._open[session_id]
        return expired


def _check_streaming(branch: Branch) -> None:
    """Raise `InvalidRequest` for what a streaming session cannot do; the rid is not looked at, there is one history."""
    for name in ("offset", "replace", "drop_previous_output"):
        if getattr(branch, name):
            raise InvalidRequest(f"{name} is not possible on a streaming session", field=f"session_params.{name}")
