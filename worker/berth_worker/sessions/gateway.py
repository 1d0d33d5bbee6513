"""Where a gateway's turn begins: from the parent it names, the history it sends and what the worker holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from berth_api import heads
from berth_api.errors import HistoryRequired, InvalidRequest
from berth_worker.sessions.history import EMPTY, PACKED, History, common_prefix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from berth_api.wire import TurnRequest


class Start(NamedTuple):
    """`parent`: the ids before the turn. `reuse`: how many of them are the leading ids that the worker holds."""

    parent: History
    reuse: int


def resolve(request: TurnRequest, held: History | None) -> Start:
    """Return where `request` begins, `held` being what the worker has of the session.

    Raises `HistoryRequired` (with `have`) if ids are missing, `InvalidRequest` if the history does not lead to the
    parent.
    """
    held = held or EMPTY
    base_head = request.parent if request.history is None else request.history_base
    base = held.upto(base_head)
    if base is None:
        raise HistoryRequired(f"the history of {base_head} is not held here", have=held.have)
    parent = base if request.history is None else _append(base, request.history, request.parent)
    return Start(parent, common_prefix(held.ids, parent.ids))


def _append(base: History, turns: list[bytes], parent: str) -> History:
    for position, turn in enumerate(turns):
        unpack(turn, f"history[{position}]")
    whole = base.extend(turns)
    if whole.head != parent:
        raise InvalidRequest(f"history leads to {whole.head!r}, not to the parent {parent!r}", field="history")
    return whole


def unpack(ids: bytes, field: str) -> NDArray[np.int32]:
    """Return packed ids as int32. Raises `InvalidRequest` naming `field` if they are not whole ids."""
    if len(ids) % heads.ID_BYTES:
        raise InvalidRequest(f"{field} must be packed int32 ids, got {len(ids)} bytes", field=field)
    return np.frombuffer(ids, PACKED).astype(np.int32, copy=False)
