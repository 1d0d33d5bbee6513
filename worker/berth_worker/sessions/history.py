"""What a worker knows of a gateway session: its ids, and under which head each of its turns ended.

A finished turn is only pending: the gateway may have failed to commit it, and the worker is not told. The parent that
the next request names tells; so the heads of earlier turns are kept, and any of them can be gone back to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from berth_api import heads

if TYPE_CHECKING:
    from numpy.typing import NDArray

MARKS_KEPT = 64
"""Heads remembered a session: a rollback goes one turn back, a restored ledger some more; else history is sent."""

PACKED = np.dtype("<i4")
"""How ids travel and are hashed."""


class Mark(NamedTuple):
    """The head of the first `length` ids."""

    head: str
    length: int


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """Ids (int32, never written again) and the heads known among them, oldest first; the last one covers all ids."""

    ids: NDArray[np.int32]
    marks: tuple[Mark, ...] = ()

    @property
    def head(self) -> str:
        """The head of all of it."""
        return self.marks[-1].head if self.marks else heads.ROOT

    @property
    def have(self) -> list[str]:
        """The heads that a request may build on, newest first. (The root always may, and goes unsaid.)"""
        return [mark.head for mark in reversed(self.marks)]

    def upto(self, head: str) -> History | None:
        """Return the history that `head` names, or None if it is not known here."""
        if head == heads.ROOT:
            return EMPTY
        for count, mark in enumerate(self.marks, 1):
            if mark.head == head:
                return History(self.ids[: mark.length], self.marks[:count])
        return None

    def extend(self, turns: list[bytes]) -> History:
        """Return this history followed by `turns` (packed ids), each under its own head."""
        marks, length, head = list(self.marks), len(self.ids), self.head
        for turn in turns:
            head, length = heads.advance(head, turn), length + len(turn) // heads.ID_BYTES
            marks.append(Mark(head, length))
        ids = np.concatenate([self.ids, *(np.frombuffer(turn, PACKED) for turn in turns)], dtype=np.int32)
        return History(ids, tuple(marks[-MARKS_KEPT:]))


EMPTY = History(np.empty(0, np.int32))


def common_prefix(left: NDArray[np.int32], right: NDArray[np.int32]) -> int:
    """Return how many leading ids are equal."""
    size = min(len(left), len(right))
    differ = np.flatnonzero(left[:size] != right[:size])
    return int(differ[0]) if len(differ) else size
