"""The background pass: idle sessions are closed or hibernated, turns whose gateway died are recorded as aborted.

Every gateway runs it; the ledger does each thing once, whoever asks first.
"""

from __future__ import annotations

import asyncio
import random

import structlog

from berth_api.errors import BerthError
from berth_gateway.backends import Backends

log = structlog.get_logger(__name__)


async def reap_for_ever(backends: Backends) -> None:
    """Reap all namespaces, again and again; a ledger that is away is waited for."""
    every_s = backends.settings.reaper.every_s
    while True:
        # Replicas that started together should not ask together.
        await asyncio.sleep(every_s * random.uniform(0.75, 1.25))
        try:
            await reap_once(backends)
        except BerthError as error:
            log.warning("reap.failed", type=error.type, detail=error.message)
        except Exception:
            log.exception("reap.crashed")  # one pass that failed must not be the last


async def reap_once(backends: Backends) -> None:
    """Do what is due now in every namespace."""
    for namespace in await backends.ledger.namespaces():
        more = True
        while more:
            with backends.metrics.ledger("reap"):
                reaped = await backends.ledger.reap(namespace)
            backends.order(*reaped.releases)
            if reaped.closed or reaped.hibernated or reaped.expired:
                log.info(
                    "reaped",
                    namespace=namespace,
                    closed=reaped.closed,
                    hibernated=reaped.hibernated,
                    expired=reaped.expired,
                )
            more = reaped.more
