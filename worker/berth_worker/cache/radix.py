"""The radix tree: KV of prompts, shared by whoever begins with the same ids, a whole page at a time.

The tree owns the pages below its nodes. Who reads a prefix locks its node, and so every node on the way to the root:
what is locked stays, what is not gives way when pages are wanted, the least recently used leaf first. Knows no tensors.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from berth_worker.cache.errors import AccountingError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray


@dataclass(slots=True, eq=False)
class Node:
    """The edge from `parent`: `ids` (int32, whole pages, never written again) and the pages with their KV."""

    ids: NDArray[np.int32]
    pages: NDArray[np.int32]
    parent: Node | None
    children: dict[bytes, Node] = field(default_factory=dict)
    """By the ids of a child's first page."""
    locks: int = 0
    """How many holders read through here: those of this node and of all below it."""
    used: int = 0
    """When it was last matched or inserted, in the tree's own count."""
    queued: bool = False
    """It has an entry among the leaves that may give way."""


class Prefix(NamedTuple):
    """The longest known beginning of some ids: its node and its pages in order. The root has none."""

    node: Node
    pages: NDArray[np.int32]


class Inserted(NamedTuple):
    """`prefix` covers all inserted ids; its first `known` pages were there before, with pages of the tree's own."""

    prefix: Prefix
    known: int


NO_PAGES = np.empty(0, np.int32)


class RadixTree:
    """Pages by the ids that they hold KV of. `evictable` and `protected`: how many are unlocked, and locked."""

    def __init__(self, page_size: int) -> None:
        self._page_size = page_size
        self._root = Node(np.empty(0, np.int32), NO_PAGES, None)
        self._leaves: list[tuple[int, int, Node]] = []
        """A heap of leaves that may give way, by last use; an entry may be out of date, so `evict` looks first."""
        self._clock = 0
        self._offers = 0
        self.evictable = 0
        self.protected = 0

    def match(self, ids: NDArray[np.int32]) -> Prefix:
        """Return the longest prefix of `ids` in whole pages, used just now. Valid until the next `evict`, or locked."""
        self._clock += 1
        node, found, at = self._root, [], 0
        while (child := node.children.get(self._first_page(ids, at))) is not None:
            same = self._common(child, ids[at:])
            if same < len(child.ids):
                child = self._split(child, same)
            child.used = self._clock
            found.append(child.pages)
            node, at = child, at + same
        return Prefix(node, np.concatenate(found) if found else NO_PAGES)

    def insert(self, ids: NDArray[np.int32], pages: NDArray[np.int32]) -> Inserted:
        """Own `pages`, the KV of `ids` (whole pages of them), but those that the tree has already.

        The first `known` pages stay the caller's, as `Inserted` says; what they hold is in `prefix` too.
        """
        if len(ids) != len(pages) * self._page_size:
            raise AccountingError(f"{len(ids)} ids cannot be the content of {len(pages)} pages of {self._page_size}")
        prefix = self.match(ids)
        known = len(prefix.pages)
        if known == len(pages):
            return Inserted(prefix, known)
        at = known * self._page_size
        leaf = Node(ids[at:].copy(), pages[known:].copy(), prefix.node, used=self._clock)
        prefix.node.children[self._first_page(ids, at)] = leaf
        self.evictable += len(leaf.pages)
        self._offer(leaf)
        return Inserted(Prefix(leaf, np.concatenate((prefix.pages, leaf.pages))), known)

    def lock(self, node: Node) -> None:
        """Keep `node` and all above it until `unlock`."""
        for each in self._upwards(node):
            if not each.locks:
                self.evictable -= len(each.pages)
                self.protected += len(each.pages)
            each.locks += 1

    def unlock(self, node: Node) -> None:
        """Undo one `lock`. Raises `AccountingError` if there is none left."""
        for each in self._upwards(node):
            if not each.locks:
                raise AccountingError(f"a node of {len(each.ids)} ids is unlocked more often than it was locked")
            each.locks -= 1
            if not each.locks:
                self.protected -= len(each.pages)
                self.evictable += len(each.pages)
                self._offer(each)

    def evict(self, count: int) -> NDArray[np.int32]:
        """Give up `count` pages of unlocked leaves, or all there are; return them."""
        given: list[NDArray[np.int32]] = []
        while count > 0 and self._leaves:
            used, _, leaf = heapq.heappop(self._leaves)
            leaf.queued = False
            if used != leaf.used:
                self._offer(leaf)
            elif not (leaf.locks or leaf.children or leaf.parent is None):
                given.append(self._cut(leaf, count))
                count -= len(given[-1])
        return np.concatenate(given) if given else NO_PAGES

    def evictable_without(self, nodes: Iterable[Node]) -> int:
        """Return what `evictable` would be if each of `nodes` were unlocked once."""
        nodes = list(nodes)
        for node in nodes:
            self.unlock(node)
        evictable = self.evictable
        for node in nodes:
            self.lock(node)
        return evictable

    def check_integrity(self, locked: Iterable[Node]) -> None:
        """Raise `AccountingError` unless counts, keys and locks agree, `locked` being the node of each holder."""
        locks: dict[int, int] = {}
        for node in locked:
            for each in self._upwards(node):
                locks[id(each)] = locks.get(id(each), 0) + 1
        evictable = protected = 0
        seen: set[int] = set()
        for node in self._nodes():
            if node.locks != locks.get(id(node), 0):
                raise AccountingError(f"a node has {node.locks} locks, {locks.get(id(node), 0)} are held")
            if not seen.isdisjoint(node.pages.tolist()) or len(node.ids) != len(node.pages) * self._page_size:
                raise AccountingError(f"a node's pages are another's too, or not its ids': {node.pages.tolist()}")
            seen.update(node.pages.tolist())
            protected += len(node.pages) if node.locks else 0
            evictable += 0 if node.locks else len(node.pages)
        if (evictable, protected) != (self.evictable, self.protected):
            raise AccountingError(
                f"{evictable} evictable and {protected} protected pages, counted {self.evictable} and {self.protected}"
            )

    @property
    def pages(self) -> NDArray[np.int32]:
        """Every page of the tree, for whoever checks the books."""
        return np.concatenate([node.pages for node in self._nodes()] or [NO_PAGES])

    def _nodes(self) -> Iterator[Node]:
        stack = list(self._root.children.values())
        while stack:
            node = stack.pop()
            yield node
            stack += node.children.values()

    def _upwards(self, node: Node) -> Iterator[Node]:
        while node.parent is not None:
            yield node
            node = node.parent

    def _first_page(self, ids: NDArray[np.int32], at: int) -> bytes:
        """Return the key of the child that continues with `ids[at:]`; less than a page of them finds none."""
        return ids[at : at + self._page_size].tobytes()

    def _common(self, node: Node, ids: NDArray[np.int32]) -> int:
        """Return how many leading ids are the node's, in whole pages."""
        size = min(len(node.ids), len(ids))
        differ = np.flatnonzero(node.ids[:size] != ids[:size])
        return (int(differ[0]) if len(differ) else size) // self._page_size * self._page_size

    def _split(self, node: Node, at: int) -> Node:
        """Put a node of the first `at` ids above `node`, which stays what its holders locked; return the new one."""
        if node.parent is None:
            raise AccountingError("the root cannot be split")
        page = at // self._page_size
        upper = Node(node.ids[:at], node.pages[:page], node.parent, locks=node.locks, used=node.used)
        node.parent.children[self._first_page(node.ids, 0)] = upper
        node.ids, node.pages, node.parent = node.ids[at:], node.pages[page:], upper
        upper.children[self._first_page(node.ids, 0)] = node
        return upper

    def _offer(self, node: Node) -> None:
        """Remember that `node` may give way."""
        if not (node.locks or node.children or node.queued or node.parent is None):
            node.queued = True
            self._offers += 1
            heapq.heappush(self._leaves, (node.used, self._offers, node))

    def _cut(self, leaf: Node, count: int) -> NDArray[np.int32]:
        """Take up to `count` pages off the end of `leaf`; without any left it goes, and its parent may be the next."""
        keep = max(0, len(leaf.pages) - count)
        given = leaf.pages[keep:]
        self.evictable -= len(given)
        if keep:
            leaf.ids, leaf.pages = leaf.ids[: keep * self._page_size], leaf.pages[:keep]
            self._offer(leaf)
        elif leaf.parent is not None:
            del leaf.parent.children[self._first_page(leaf.ids, 0)]
            self._offer(leaf.parent)
            leaf.parent = None
        return given
