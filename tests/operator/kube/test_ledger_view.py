"""The ledger as the operator sees it: followed by what moved, and listed anew for what does not count as movement."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from berth_api.admin import AdminSession, Change, Changes
from berth_operator.errors import AdminRefused
from berth_operator.kube.ledger_view import SINGLY_MOST, LedgerView
from berth_operator.kube.store import Key
from kubekit.clock import Clock
from kubekit.gateways import FakeAdmin, record
from kubekit.world import key

ALICE = Key("default", "alice")


class Ledger:
    """A namespace with one session, as a gateway would tell of it."""

    def __init__(self) -> None:
        self.turns = 0
        self.moved: list[str] = []
        self.lists = 0

    def record(self) -> AdminSession:
        known: dict[str, Any] = dict.fromkeys(AdminSession.__struct_fields__)
        named = {"namespace": "default", "name": "alice", "origin": "cr", "turns": self.turns}
        return AdminSession(**{**known, **named})

    async def changes(self, namespace: str, after: str | None = None) -> Changes:
        new = self.moved[int(after) :] if after is not None else []
        return Changes(str(len(self.moved)), [Change("session", name, "moved") for name in new])

    async def sessions(self, namespace: str, origin: str | None = None) -> list[AdminSession]:
        self.lists += 1
        return [self.record()]

    async def session(self, namespace: str, name: str) -> AdminSession:
        return self.record()


async def follow(view: LedgerView, namespaces: Sequence[str] = ("default",)) -> None:
    await view.follow(namespaces, lambda _: True)


async def test_what_moved_is_read_and_the_rest_is_listed_after_its_time() -> None:
    ledger, heard, now = Ledger(), list[Key](), [0.0]
    view = LedgerView(ledger, heard.append, relist_s=300.0, clock=lambda: now[0])  # type: ignore[arg-type]
    await follow(view)
    assert (heard, ledger.lists) == ([ALICE], 1)

    ledger.turns = 1
    ledger.moved.append("alice")
    await follow(view)
    assert (heard, ledger.lists) == ([ALICE] * 2, 1), "a movement needs no list"

    ledger.turns, now[0] = 5, 299.0
    await follow(view)
    assert len(heard) == 2, "nobody has said anything"
    now[0] = 300.0
    await follow(view)
    assert (len(heard), ledger.lists) == (3, 2)
    record = view.get(ALICE)
    assert record is not None
    assert record.turns == 5
    await follow(view)
    assert (len(heard), ledger.lists) == (3, 2)


class View:
    """A view of namespace team, where resources want alice and bob."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.admin = FakeAdmin(self.clock)
        self.heard: list[str] = []
        self.ledger = LedgerView(
            self.admin,  # type: ignore[arg-type]
            lambda key: self.heard.append(key.name),
            relist_s=300.0,
            clock=self.clock,
        )

    async def follow(self, *namespaces: str) -> list[str]:
        """Follow, and return the names that moved."""
        self.heard.clear()
        await self.ledger.follow(namespaces or ("team",), lambda key: key.name in ("alice", "bob"))
        return sorted(self.heard)

    def has(self, name: str, uid: str = "session-1", **facts: Any) -> None:
        self.admin.known[key(name)] = record(name, uid, **facts)
        self.admin.note("session", name)


@pytest.fixture
def view() -> View:
    return View()


async def test_a_namespace_is_listed_before_it_is_followed(view: View) -> None:
    view.has("alice")
    assert not view.ledger.knows("team")
    assert await view.follow() == ["alice"]
    assert view.ledger.knows("team")
    assert view.ledger.get(key("alice")) == record("alice")
    assert [call[0] for call in view.admin.calls] == ["changes", "sessions"], "the cursor first"


async def test_only_what_moved_is_asked_for(view: View) -> None:
    view.has("alice")
    view.has("bob", "session-2")
    await view.follow()
    view.admin.change("bob", worker="w.boot")
    view.admin.calls.clear()
    assert await view.follow() == ["bob"]
    assert [call[1] for call in view.admin.asked("session")] == ["bob"]


async def test_what_moved_and_is_as_it_was_is_no_news(view: View) -> None:
    view.has("alice")
    await view.follow()
    view.admin.note("session", "alice")
    view.admin.note("worker", "w.boot")
    assert await view.follow() == []


async def test_sessions_of_clients_are_passed_over(view: View) -> None:
    await view.follow()
    view.has("carol", origin="http")
    assert await view.follow() == []
    assert view.admin.asked("session") == []


async def test_one_that_becomes_a_clients_is_gone(view: View) -> None:
    view.has("alice")
    await view.follow()
    view.admin.change("alice", origin="http")
    assert await view.follow() == ["alice"]
    assert view.ledger.get(key("alice")) is None


async def test_one_that_is_gone_is_told(view: View) -> None:
    view.has("alice")
    await view.follow()
    view.admin.change("alice")
    assert await view.follow() == ["alice"]
    assert view.ledger.all() == []


async def test_a_cursor_that_is_too_old_means_a_list(view: View) -> None:
    view.has("alice")
    view.has("bob", "session-2")
    await view.follow()
    view.admin.known[key("bob")] = record("bob", "session-2", worker="w.boot")
    del view.admin.known[key("alice")]
    view.admin.forget_changes()
    assert await view.follow() == ["alice", "bob"]
    assert len(view.admin.asked("sessions")) == 2


async def test_where_much_has_moved_a_list_is_cheaper(view: View) -> None:
    await view.follow()
    names = [f"s{n}" for n in range(SINGLY_MOST + 1)]
    for name in names:
        view.has(name, f"uid-{name}")
    view.heard.clear()
    await view.ledger.follow(("team",), lambda _: True)
    assert sorted(view.heard) == sorted(names)
    assert view.admin.asked("session") == []


async def test_where_something_moves_all_the_time_it_comes_to_an_end(view: View) -> None:
    """A thousand turns a second must not keep anybody from reading what they moved."""
    view.has("alice")
    await view.follow()
    answer = view.admin.changes

    async def changes(namespace: str, after: str | None = None) -> Changes:
        view.admin.change("alice", turns=len(view.admin.calls))
        return await answer(namespace, after)

    view.admin.changes = changes  # type: ignore[method-assign]
    assert await asyncio.wait_for(view.follow(), 20) == ["alice"]


async def test_our_own_orders_are_known_at_once(view: View) -> None:
    await view.follow()
    view.ledger.learned(key("alice"), record("alice", worker="w.boot"))
    assert view.ledger.get(key("alice")) == record("alice", worker="w.boot")


class TestGatewaysAway:
    async def test_nobody_has_been_asked(self, view: View) -> None:
        assert view.ledger.available is None

    async def test_what_was_known_stays(self, view: View) -> None:
        view.has("alice")
        await view.follow()
        view.admin.change("alice", worker="w.boot")
        view.admin.down = True
        assert await view.follow() == []
        assert view.ledger.available is False
        assert view.ledger.get(key("alice")) == record("alice")
        view.admin.down = False
        assert await view.follow() == ["alice"]
        assert view.ledger.available is True

    async def test_one_that_goes_halfway_is_asked_the_same_again(self, view: View) -> None:
        view.has("alice")
        await view.follow()
        view.admin.change("alice", worker="w.boot")
        view.admin.refusals["session"] = AdminRefused("no", type_="invalid_request", status=400)
        assert await view.follow() == []
        assert view.ledger.get(key("alice")) == record("alice"), "a refusal is not a session that is gone"
        assert view.ledger.available is False
        del view.admin.refusals["session"]
        assert await view.follow() == ["alice"]

    async def test_a_list_that_fails_leaves_the_namespace_unknown(self, view: View) -> None:
        view.admin.refusals["sessions"] = AdminRefused("no", type_="", status=400)
        await view.follow()
        assert not view.ledger.knows("team")
