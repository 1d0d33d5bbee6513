"""Keeps a turn's lease: renewed at a third of it, given up on this process's own clock before it can be over.

The ledger decides by fences, so a holder that is late does no harm there; stopping by itself keeps two workers from
generating the same turn for longer than they must.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from berth_api.errors import BerthError, LedgerUnavailable
from berth_gateway.ledger.errors import FenceLost
from berth_gateway.ledger.records import OrderMode, Renewed

log = structlog.get_logger(__name__)


class Lease:
    """Timers of one turn; callbacks instead of a task, because most turns end before the first renewal."""

    def __init__(
        self,
        renew: Callable[[], asyncio.Future[Renewed] | asyncio.Task[Renewed]],
        *,
        margin: float,
        on_order: Callable[[OrderMode], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._renew = renew
        self._margin = margin
        self._on_order = on_order
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._renewal: asyncio.TimerHandle | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._expires_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._over = False

    def granted(self, asked_at: float, lease_s: float) -> None:
        """Count a lease of `lease_s` from `asked_at` (the loop's time before the call was sent)."""
        self._disarm()
        if not self._over:
            self._expires_at = asked_at + lease_s * (1 - self._margin)
            self._renewal = self._loop.call_at(asked_at + lease_s / 3, self._begin)

    def end(self) -> None:
        """No renewal and no expiry from now on."""
        self._over = True
        self._disarm()
        if self._task is not None:
            self._task.cancel()

    def _disarm(self) -> None:
        for timer in (self._renewal, self._expiry):
            if timer is not None:
                timer.cancel()

    def _expire(self) -> None:
        self.end()
        self._on_lost("lease_expired")

    def _begin(self) -> None:
        """Renew, and from now on mind the end: a turn that ends before this needs no timer for it."""
        if self._loop.time() >= self._expires_at:  # this process stood still
            self._expire()
            return
        self._expiry = self._loop.call_at(self._expires_at, self._expire)
        if self._task is None or self._task.done():
            self._task = self._loop.create_task(self._keep())

    async def _keep(self) -> None:
        while not self._over:
            asked_at = self._loop.time()
            try:
                renewed = await self._renew()
            except FenceLost:
                self.end()
                self._on_lost("superseded")
                return
            except LedgerUnavailable as error:
                log.warning("lease.renewal_failed", error=error.message)
                await asyncio.sleep(0.05)
                continue
            except BerthError as error:
                log.error("lease.renewal_refused", type=error.type, error=error.message)
                await asyncio.sleep(0.25)
                continue
            self.granted(asked_at, renewed.lease_s)
            if renewed.order is not None:
                self._on_order(renewed.order)
            return
