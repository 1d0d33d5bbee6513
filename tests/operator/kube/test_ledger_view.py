"""The ledger as the operator sees it: followed by what moved, and listed anew for what does not count as movement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from berth_api.admin import AdminSession, Change, Changes
from berth_operator.kube.ledger_view import LedgerView
from berth_operator.kube.store import Key

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
