"""The sessions of resources as the ledger has them, kept up by following what moved.

Turns are no movement, beyond a session's first one: how far histories have come is seen by a list, every now and then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from berth_api.admin import AdminSession
from berth_operator.admin_client import AdminClient
from berth_operator.errors import AdminRefused, AdminUnavailable, CursorGone
from berth_operator.kube.store import Key

log = structlog.get_logger("berth_operator.ledger")

PAGES_MOST = 10
"""Answers of a thousand changes at most that are read in a row."""
SINGLY_MOST = 50
"""More sessions than that are not asked for one by one: a list is cheaper."""


class LedgerView:
    """`changed(key)` hears of every session that is not as it was. While no gateway answers it stays so."""

    def __init__(
        self, admin: AdminClient, changed: Callable[[Key], None], *, relist_s: float, clock: Callable[[], float]
    ) -> None:
        self.available: bool | None = None
        """Whether a gateway answered when asked last; None: none has been asked yet."""
        self._admin = admin
        self._changed = changed
        self._relist_s = relist_s
        self._clock = clock
        self._cursors: dict[str, str] = {}
        self._listed: dict[str, float] = {}
        self._records: dict[Key, AdminSession] = {}

    def knows(self, namespace: str) -> bool:
        """Whether a namespace has been listed, so that what is not here is not there."""
        return namespace in self._cursors

    def get(self, key: Key) -> AdminSession | None:
        return self._records.get(key)

    def all(self) -> list[AdminSession]:
        return list(self._records.values())

    def learned(self, key: Key, record: AdminSession) -> None:
        """Take what the gateways answered to an order of ours."""
        self._records[key] = record

    async def follow(self, namespaces: Iterable[str], wanted: Callable[[Key], bool]) -> None:
        """Ask what moved in each namespace; sessions that no resource wants, nor wanted before, are passed over."""
        try:
            for namespace in namespaces:
                await self._follow(namespace, wanted)
        except (AdminUnavailable, AdminRefused) as error:
            if self.available is not False:
                log.warning("the sessions cannot be followed", error=str(error))
            self.available = False
        else:
            self.available = True

    async def _follow(self, namespace: str, wanted: Callable[[Key], bool]) -> None:
        cursor = self._cursors.get(namespace)
        if cursor is None or self._clock() - self._listed[namespace] >= self._relist_s:
            return await self._list(namespace)
        moved: set[Key] = set()
        # Where something moves all the time there is no end to wait for.
        for _ in range(PAGES_MOST):
            try:
                answer = await self._admin.changes(namespace, cursor)
            except CursorGone:
                return await self._list(namespace)
            moved |= {Key(namespace, change.name) for change in answer.changes if change.kind == "session"}
            cursor = answer.cursor
            if not answer.changes:
                break
        keys = [key for key in moved if wanted(key) or key in self._records]
        if len(keys) > SINGLY_MOST:
            return await self._list(namespace)
        await asyncio.gather(*(self._read(key) for key in keys))
        # Last: were it interrupted, the same changes would be read again.
        self._cursors[namespace] = cursor
        return None

    async def _list(self, namespace: str) -> None:
        # The cursor first: what moves while the list is made is told again.
        cursor = (await self._admin.changes(namespace)).cursor
        listed = {Key(namespace, each.name): each for each in await self._admin.sessions(namespace, "cr")}
        for key in [key for key in self._records if key.namespace == namespace and key not in listed]:
            self._take(key, None)
        for key, record in listed.items():
            self._take(key, record)
        self._cursors[namespace], self._listed[namespace] = cursor, self._clock()

    async def _read(self, key: Key) -> None:
        try:
            record = await self._admin.session(*key)
        except AdminRefused as refusal:
            if refusal.status != 404:
                raise
            self._take(key, None)
        else:
            self._take(key, record if record.origin == "cr" else None)

    def _take(self, key: Key, record: AdminSession | None) -> None:
        before = self._records.get(key)
        if record is None:
            self._records.pop(key, None)
        else:
            self._records[key] = record
        if before != record:
            self._changed(key)
