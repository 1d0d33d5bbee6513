"""The books of the KV pool, and the exact identity that they keep after every step.

    available + evictable + protected + session_held + uncached == total        (tokens in whole pages)

What is lent is derived from the running requests at each check: a cached flag would itself have to be kept right
through abort, retract and overlap. `evictable` and `protected` belong to the radix tree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from berth_worker.cache.errors import AccountingError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from berth_worker.cache.kv import Holding, KVCache
    from berth_worker.cache.sessions import Slots

CheckLevel = Literal["off", "idle", "busy"]
"""When the identity is verified: never, when no request is left, or after every step (then every page's owner too)."""


@dataclass(frozen=True, slots=True)
class Memory:
    """One atomic snapshot, in tokens (rows in rows)."""

    available: int
    evictable: int
    protected: int
    session_held: int
    uncached: int
    total: int
    rows_free: int
    rows_held: int
    rows_total: int


def snapshot(cache: KVCache, slots: Slots, running: Iterable[Holding]) -> Memory:
    """Count every token of the pool. `running` are the holdings of admitted requests; some of them are slots'."""
    lent = list(running)
    lent_ids = {id(holding) for holding in lent}
    idle = [slot.holding for slot in slots if id(slot.holding) not in lent_ids]
    page = cache.pool.page_size
    return Memory(
        available=cache.pool.free * page,
        evictable=cache.tree.evictable * page,
        protected=cache.tree.protected * page,
        session_held=sum(map(cache.own_pages, idle)) * page,
        uncached=sum(map(cache.own_pages, lent)) * page,
        total=cache.pool.num_pages * page,
        rows_free=cache.rows.free,
        rows_held=len(idle) + len(lent),
        rows_total=cache.rows.total,
    )


def verify(memory: Memory) -> None:
    """Raise `AccountingError` if tokens or rows were lost, or counted twice."""
    counted = memory.available + memory.evictable + memory.protected + memory.session_held + memory.uncached
    if counted != memory.total:
        raise AccountingError(f"{counted} of {memory.total} KV tokens accounted for: {memory}")
    if memory.rows_free + memory.rows_held != memory.rows_total:
        raise AccountingError(f"{memory.rows_free + memory.rows_held} of {memory.rows_total} rows accounted: {memory}")


def verify_owners(cache: KVCache, holdings: Sequence[Holding]) -> None:
    """Raise `AccountingError` unless every page and row has one owner: pool, tree, or one of `holdings` (each once)."""
    cache.tree.check_integrity([holding.node for holding in holdings if holding.node is not None])
    owned = [cache.tree.pages]
    for holding in holdings:
        if not holding.shared <= holding.committed <= holding.allocated:
            raise AccountingError(f"lengths out of order: {holding}")
        owned.append(cache.pages(holding)[cache.pool.pages_for(holding.shared) :])
    pages, rows = np.concatenate(owned), {holding.row for holding in holdings}
    if len(rows) != len(holdings) or len(np.unique(pages)) != len(pages):
        raise AccountingError(f"a row or page has two owners: rows {sorted(rows)}, pages {sorted(pages.tolist())}")
