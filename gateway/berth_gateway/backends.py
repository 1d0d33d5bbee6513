"""What a turn works with: the ledger, the workers, the settings and the metrics, made once a process."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import structlog

from berth_api.wire import ReleaseRequest
from berth_gateway.ledger.ledger import Ledger
from berth_gateway.ledger.records import Release
from berth_gateway.metrics import Metrics
from berth_gateway.settings import Settings
from berth_gateway.workers import WorkerClient, WorkerError

log = structlog.get_logger(__name__)


@dataclass
class Backends:
    settings: Settings
    ledger: Ledger
    workers: WorkerClient
    metrics: Metrics = field(default_factory=Metrics)
    _errands: set[asyncio.Task[None]] = field(default_factory=set)

    def order(self, *releases: Release | None) -> None:
        """Have KV wiped that the ledger gave up. Best effort and in the background: the worker's fence decides."""
        for release in releases:
            if release is not None:
                self.run(self._release(release))

    def run(self, errand: Coroutine[Any, Any, None]) -> None:
        """Do something that nobody waits for; it ends with the process at the latest."""
        task = asyncio.get_running_loop().create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    async def _release(self, release: Release) -> None:
        try:
            await self.workers.release(release.worker, release.url, ReleaseRequest(release.uid, release.epoch))
        except WorkerError as error:
            log.info("release.failed", session=f"{release.namespace}/{release.name}", detail=str(error))

    async def aclose(self) -> None:
        if self._errands:  # the last session's close, say: short, and worth a moment
            await asyncio.wait(self._errands, timeout=self.settings.worker.call_s)
        for task in self._errands:
            task.cancel()
        await self.workers.aclose()
        await self.ledger.aclose()
