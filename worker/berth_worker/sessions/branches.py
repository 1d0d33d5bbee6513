"""The requests of a native session that does not stream: a tree by rid, in which each continues another one or none.

Any number of requests may continue a finished one, at once. A node keeps what its request added and how many ids of its
parent's it goes on from, so that branches share their history. KV is none of this tree's business: to the cache these
are requests like any other, and the radix tree knows what they have in common by their ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from berth_api.errors import InvalidRequest

if TYPE_CHECKING:
    from numpy.typing import NDArray

REQUESTS_KEPT = 4096
"""Requests a session may keep. The capacity bounds the ids of each, and so both bound the session's memory."""


@dataclass(frozen=True, slots=True)
class Branch:
    """Where a client wants its request, in SGLang's words: behind the request `rid`, or (None) at the root.

    `offset` keeps only so many leading ids of that request's, or leaves out so many at their end if it is negative; 0
    keeps all. `replace` drops what continues that request, or everything; `drop_previous_output` leaves its output out.
    """

    rid: str | None = None
    offset: int = 0
    replace: bool = False
    drop_previous_output: bool = False


PLAIN = Branch()
"""Nothing said: a new root of a tree, an append to a streaming session."""


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A finished request: the first `kept` ids of `parent`, then `ids` (int32), its own input and output."""

    parent: Node | None
    kept: int
    ids: NDArray[np.int32]
    prompt: int
    """Length of its whole prompt: history and input."""

    @property
    def length(self) -> int:
        """Length of prompt and output."""
        return self.kept + len(self.ids)

    def first(self, count: int) -> NDArray[np.int32]:
        """Return the first `count` ids of prompt and output (int32, a copy)."""
        parts, node = [], self
        while node.parent is not None:
            parts.append(node.ids[: max(0, count - node.kept)])
            node, count = node.parent, min(count, node.kept)
        return np.concatenate([node.ids[:count], *reversed(parts)])


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where a new request goes: behind the first `kept` ids of `parent` (None: at the root), in place of others."""

    rid: str
    parent: Node | None
    kept: int
    dropped: tuple[str, ...]
    """Finished requests that it replaces."""
    aborted: tuple[str, ...]
    """Requests in flight that it replaces."""

    @property
    def history(self) -> NDArray[np.int32]:
        """The ids before the request's own (int32)."""
        return np.empty(0, np.int32) if self.parent is None else self.parent.first(self.kept)


class Branches:
    """One session's requests: finished ones, and those in flight, which nothing can continue yet."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        """By rid; a parent comes before its children."""
        self._running: dict[str, Place] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    @property
    def running(self) -> int:
        """Requests in flight."""
        return len(self._running)

    def place(self, rid: str, branch: Branch) -> Place:
        """Return where the new request `rid` goes. Raises `InvalidRequest` if it cannot go there; changes nothing."""
        parent = self._parent(branch.rid)
        kept = _kept(parent, branch)
        dropped, aborted = self._behind(parent) if branch.replace else ((), ())
        if rid in self._nodes and rid not in dropped:
            raise InvalidRequest(f"rid {rid!r} belongs to an earlier request of the session", field="rid")
        if len(self._nodes) + len(self._running) - len(dropped) - len(aborted) >= REQUESTS_KEPT:
            raise InvalidRequest(
                f"the session keeps {REQUESTS_KEPT} requests already: replace some", field="session_params.replace"
            )
        return Place(rid, parent, kept, dropped, aborted)

    def begin(self, place: Place) -> None:
        """The request was accepted, and those in flight that it replaces have ended."""
        for rid in place.dropped:
            del self._nodes[rid]
        self._running[place.rid] = place

    def end(self, rid: str, ids: NDArray[np.int32] | None, prompt: int) -> None:
        """The request ended. `ids`: its whole prompt, `prompt` long, and its output; None if it was aborted."""
        place = self._running.pop(rid)
        if ids is not None:
            self._nodes[rid] = Node(place.parent, place.kept, ids[place.kept :].copy(), prompt)

    def _parent(self, rid: str | None) -> Node | None:
        if rid is None:
            return None
        if rid in self._running:
            raise InvalidRequest(f"the request {rid!r} is still in flight", field="session_params.rid")
        if rid not in self._nodes:
            raise InvalidRequest(f"the session has no request {rid!r}", field="session_params.rid")
        return self._nodes[rid]

    def _behind(self, root: Node | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the rids of what continues `root` (None: of everything), finished ones and those in flight."""
        nodes, finished = {root}, []
        for rid, node in self._nodes.items():
            if node.parent in nodes:
                nodes.add(node)
                finished.append(rid)
        return tuple(finished), tuple(rid for rid, place in self._running.items() if place.parent in nodes)


def _kept(parent: Node | None, branch: Branch) -> int:
    """Return how many leading ids of `parent` the request goes on from."""
    whole = 0 if parent is None else parent.prompt if branch.drop_previous_output else parent.length
    kept = branch.offset if branch.offset > 0 else whole + branch.offset
    if parent is None and kept <= 0:
        return 0
    if not 0 < kept <= whole:
        possible = f"1 to {whole}, or {1 - whole} to -1" if whole else "none without session_params.rid"
        raise InvalidRequest(f"offset is {branch.offset}, possible: {possible}", field="session_params.offset")
    return kept
