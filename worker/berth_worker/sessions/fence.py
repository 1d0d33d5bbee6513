"""The fence: the highest (epoch, attempt) seen of each gateway session.

It is what makes a zombie harmless: a request sent before a session moved on, and arriving after, must not run. So it is
kept when the slot is long gone, bounded by count, the least recently touched session forgotten first.
"""

from __future__ import annotations

from typing import NamedTuple

from berth_api.errors import Duplicate, Stale

SESSIONS_REMEMBERED = 100_000
"""About 20 MB when full. A session falls out after as many others had a turn here; its requests are long dead then."""


class Fence(NamedTuple):
    """A session's fencing pair; pairs compare as tuples do."""

    epoch: int
    attempt: int


class Fences:
    """The pairs seen, by session uid."""

    def __init__(self, limit: int = SESSIONS_REMEMBERED) -> None:
        self._limit = limit
        self._seen: dict[str, Fence] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def seen(self, uid: str) -> Fence | None:
        """Return the highest pair seen of `uid`."""
        return self._seen.get(uid)

    def check(self, uid: str, fence: Fence) -> None:
        """Raise `Stale` or `Duplicate` unless `fence` is higher than all seen. Remembers nothing."""
        seen = self._seen.get(uid)
        if seen is None or fence > seen:
            return
        if fence == seen:
            raise Duplicate(f"attempt {fence.attempt} of epoch {fence.epoch} is known already", seen=list(seen))
        raise Stale(
            f"epoch {fence.epoch} attempt {fence.attempt} is older than {seen.epoch}/{seen.attempt}", seen=list(seen)
        )

    def advance(self, uid: str, fence: Fence) -> None:
        """Remember `fence` as the highest of `uid`."""
        self._seen.pop(uid, None)
        self._seen[uid] = fence
        if len(self._seen) > self._limit:
            del self._seen[next(iter(self._seen))]
