"""The radix tree: whole pages by their ids, kept while locked, given up leaf by leaf."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from berth_worker.cache.errors import AccountingError
from berth_worker.cache.radix import Prefix, RadixTree


def ids(text: str) -> np.ndarray:
    """Letters as ids."""
    return np.array([ord(letter) for letter in text], np.int32)


def pages(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int32)


@pytest.fixture
def tree() -> RadixTree:
    """Pages of two tokens: `abcdef` in 1, 2, 3, and `abxy` in 1 and 4."""
    tree = RadixTree(2)
    tree.insert(ids("abcdef"), pages(1, 2, 3))
    tree.insert(ids("abxy"), pages(9, 4))
    return tree


@pytest.mark.parametrize(
    ("text", "found"),
    [("abcdef", [1, 2, 3]), ("abcde", [1, 2]), ("abcxef", [1]), ("abxyz", [1, 4]), ("a", []), ("zzzz", []), ("", [])],
)
def test_the_longest_beginning_in_whole_pages_is_found(tree, text, found):
    assert tree.match(ids(text)).pages.tolist() == found


def test_what_is_known_already_stays_the_callers():
    tree = RadixTree(2)
    assert tree.insert(ids("abcd"), pages(1, 2)).known == 0
    inserted = tree.insert(ids("abcdef"), pages(7, 8, 3))
    assert (inserted.known, inserted.prefix.pages.tolist()) == (2, [1, 2, 3])
    assert tree.insert(ids("ab"), pages(6)).known == 1
    assert sorted(tree.pages.tolist()) == [1, 2, 3]


def test_pages_must_be_full(tree):
    with pytest.raises(AccountingError, match="3 ids"):
        tree.insert(ids("abc"), pages(1, 2))


def test_the_ids_that_the_caller_writes_on_are_not_the_trees():
    tree, buffer = RadixTree(2), ids("abcd")
    tree.insert(buffer, pages(1, 2))
    buffer[:] = 0
    assert tree.match(ids("abcd")).pages.tolist() == [1, 2]


def test_a_lock_keeps_the_way_to_the_root(tree):
    node = tree.match(ids("abcdef")).node
    tree.lock(node)
    assert (tree.evictable, tree.protected) == (1, 3)
    assert tree.evict(10).tolist() == [4]
    tree.unlock(node)
    assert (tree.evictable, tree.protected) == (3, 0)
    with pytest.raises(AccountingError, match="more often"):
        tree.unlock(node)


def test_a_lock_survives_a_split(tree):
    node = tree.match(ids("abcdef")).node
    tree.lock(node)
    upper = tree.insert(ids("abcdzz"), pages(1, 2, 5)).prefix
    assert upper.pages.tolist() == [1, 2, 5]
    tree.check_integrity([node])
    assert sorted(tree.evict(10).tolist()) == [4, 5]
    tree.unlock(node)
    assert sorted(tree.evict(10).tolist()) == [1, 2, 3]


def test_the_least_recently_used_leaf_gives_way_from_its_end():
    tree = RadixTree(1)
    tree.insert(ids("abc"), pages(1, 2, 3))
    tree.insert(ids("xyz"), pages(4, 5, 6))
    tree.match(ids("abc"))
    assert tree.evict(2).tolist() == [5, 6]
    assert tree.evict(2).tolist() == [4, 3]
    assert tree.match(ids("abc")).pages.tolist() == [1, 2]


def test_a_parent_gives_way_after_its_children(tree):
    assert tree.evict(1).tolist() == [3]
    assert sorted(tree.evict(2).tolist()) == [2, 4]
    assert tree.evict(5).tolist() == [1]
    assert tree.evict(5).tolist() == []
    tree.check_integrity([])


def test_what_would_be_evictable_without_some_locks(tree):
    left, right = tree.match(ids("abcd")).node, tree.match(ids("abxy")).node
    tree.lock(left)
    tree.lock(right)
    assert tree.evictable_without([left]) == 2
    assert tree.evictable_without([left, right]) == 4
    tree.check_integrity([left, right])


def test_a_lost_lock_is_noticed(tree):
    tree.lock(tree.match(ids("abxy")).node)
    with pytest.raises(AccountingError, match="locks"):
        tree.check_integrity([])


class TreeMachine(RuleBasedStateMachine):
    """Any order of matches, insertions, locks and evictions, against a dictionary from page-aligned prefix to page."""

    texts = st.text("ab", max_size=12)

    @initialize(page=st.sampled_from([1, 2, 3]))
    def start(self, page):
        self.page, self.tree = page, RadixTree(page)
        self.known: dict[str, int] = {}
        self.locked: list[tuple[str, Prefix]] = []
        self.fresh = 0

    def whole(self, text: str) -> str:
        return text[: len(text) // self.page * self.page]

    def beginnings(self, text: str) -> list[str]:
        return [text[:at] for at in range(self.page, len(text) + 1, self.page)]

    @rule(text=texts)
    def insert(self, text):
        text = self.whole(text)
        mine = list(range(self.fresh, self.fresh + len(text) // self.page))
        self.fresh += len(mine)
        inserted = self.tree.insert(ids(text), np.array(mine, np.int32))
        assert inserted.known == sum(each in self.known for each in self.beginnings(text))
        for each, page in zip(self.beginnings(text), mine, strict=True):
            self.known.setdefault(each, page)
        assert inserted.prefix.pages.tolist() == [self.known[each] for each in self.beginnings(text)]

    @rule(text=texts, lock=st.booleans())
    def match(self, text, lock):
        prefix = self.tree.match(ids(text))
        found = [self.known[each] for each in self.beginnings(text) if each in self.known]
        assert prefix.pages.tolist() == found
        if lock:
            self.tree.lock(prefix.node)
            self.locked.append((text[: len(found) * self.page], prefix))

    @precondition(lambda self: self.locked)
    @rule(data=st.data())
    def unlock(self, data):
        _, prefix = self.locked.pop(data.draw(st.integers(0, len(self.locked) - 1)))
        self.tree.unlock(prefix.node)

    @rule(count=st.integers(0, 8))
    def evict(self, count):
        spare = self.tree.evictable
        gone = set(self.tree.evict(count).tolist())
        assert len(gone) == min(count, spare)
        self.known = {text: page for text, page in self.known.items() if page not in gone}
        held = {page for text, _ in self.locked for page in (self.known[each] for each in self.beginnings(text))}
        assert gone.isdisjoint(held)

    @invariant()
    def counts_agree(self):
        if hasattr(self, "tree"):
            self.tree.check_integrity([prefix.node for _, prefix in self.locked])
            assert sorted(self.tree.pages.tolist()) == sorted(self.known.values())
            for text in self.known:
                assert all(each in self.known for each in self.beginnings(text))


TreeMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
TestTreeMachine = TreeMachine.TestCase
