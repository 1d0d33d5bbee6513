"""Gateway turns in flight, one a session, and what this worker knows of the sessions' histories."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from berth_worker.sessions.fence import Fence, Fences

if TYPE_CHECKING:
    from berth_api.wire import ReleaseRequest, StopRequest
    from berth_worker.cache.kv import Holding
    from berth_worker.cache.sessions import Slots
    from berth_worker.engine.requests import Live
    from berth_worker.sessions.history import History


class Kin(NamedTuple):
    """A session's `history`, up to where another begins, and the `holding` with KV of some of it."""

    history: History
    holding: Holding


class GatewayTurns:
    """The turns by session uid, behind the fences of their sessions."""

    def __init__(self, slots: Slots) -> None:
        self.fences = Fences()
        self._slots = slots
        self._turns: dict[str, Live] = {}

    def get(self, uid: str) -> Live | None:
        """Return the session's turn in flight."""
        return self._turns.get(uid)

    def add(self, uid: str, live: Live) -> None:
        """A turn of the session was accepted; an older one has ended."""
        self._turns[uid] = live

    def remove(self, uid: str) -> None:
        """The session's turn ended."""
        del self._turns[uid]

    def meant_by(self, order: StopRequest) -> Live | None:
        """Return the turn in flight, if it is the very attempt that `order` names."""
        live = self._turns.get(order.uid)
        if live is None or live.turn is None:
            return None
        same = (live.turn.turn, live.turn.fence) == (order.turn, Fence(order.epoch, order.attempt))
        return live if same else None

    def may_release(self, order: ReleaseRequest) -> bool:
        """Say whether the session's KV may be wiped: no turn of it runs, and none of a higher epoch has run."""
        seen = self.fences.seen(order.uid)
        return order.uid not in self._turns and (seen is None or seen.epoch <= order.epoch)

    def held(self, uid: str) -> History | None:
        """Return what is known of a session: by its turn in flight, else by its slot."""
        live, slot = self._turns.get(uid), self._slots.get(("gateway", uid))
        if live is not None and live.turn is not None:
            return live.turn.parent
        return slot.history if slot is not None else None

    def kin(self, head: str) -> Kin | None:
        """Return who holds KV of the history that `head` names: what a fork came from, or another fork of it."""
        known = [(slot.history, slot.holding) for slot in self._slots if slot.history is not None]
        turns = [(live.turn, live.sequence.holding) for live in self._turns.values()]
        known += [(turn.parent, holding) for turn, holding in turns if turn is not None and holding is not None]
        for history, holding in known:
            found = history.upto(head)
            if found is not None and len(found.ids):
                return Kin(found, holding)
        return None
