"""One attempt of a turn at one worker, and how the next one comes about: by its refusals, or by a move."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import structlog

from berth_api.errors import BerthError, NoCapacity
from berth_api.heads import ROOT, advance
from berth_api.wire import Finished, TurnRequest, WorkerEvent
from berth_gateway.backends import Backends
from berth_gateway.events import EventReader, Garbled
from berth_gateway.ledger.records import Acquired, Moved, Renewed
from berth_gateway.scope import Scope
from berth_gateway.watchdog import Watchdog
from berth_gateway.work import Work
from berth_gateway.workers import WorkerGone, WorkerRefused, as_refusal

log = structlog.get_logger(__name__)

_encoder = msgspec.msgpack.Encoder()

OWN_FAULTS = frozenset({"internal_error", "draining"})
"""Reasons of a worker's `aborted` that say something about the worker, not about the turn."""
_COUNTED = OWN_FAULTS | {"queue_full", "unauthorized"}
"""Refusals that are counted under their own name; others share one: a worker must not invent names for metrics."""


class Broken(Exception):
    """The turn ends without a result; `retry_safe`: running it again can do no harm that this run did."""

    def __init__(self, reason: str, *, retry_safe: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_safe = retry_safe


class Rejoinder(Exception):
    """The worker refused in a way that the next attempt can answer."""

    def __init__(self, refused: WorkerRefused) -> None:
        super().__init__(str(refused))
        self.refused = refused


class WrongEnd(Exception):
    """The worker counts or hashes another turn than the one that was received."""


class Attempt:
    """Holds the fence and the place of the current attempt. Its ledger calls return the lease they were granted."""

    def __init__(self, backends: Backends, acquired: Acquired) -> None:
        self._backends = backends
        self.acquired = acquired
        self._lease_s = backends.settings.turn.lease_s
        self.fence = acquired.fence
        self._placement = acquired.placement
        self._history: list[bytes] | None = None
        self._base = ROOT
        self._refusals = 0
        self.accepted = False
        self.moves = 0
        """How often the turn left a worker that had accepted it."""

    @property
    def worker(self) -> str:
        return self._placement.worker

    @property
    def url(self) -> str:
        return self._placement.url

    # At the ledger --------------------------------------------------------------------------------------------------

    async def renew(self) -> Renewed:
        with self._backends.metrics.ledger("renew"):
            return await self._backends.ledger.renew(self.fence, lease_s=self._lease_s)

    async def prepare(self) -> float | None:
        """Fetch what the worker is known to lack."""
        if self.acquired.parent == ROOT:
            self._history, self._base = [], ROOT
        elif self._placement.holds_parent:
            self._history, self._base = None, ROOT
        else:
            await self._fetch(0)
        return None

    async def rejoin(self, rejoinder: Rejoinder) -> float | None:
        """Get the next attempt at the same worker. Raises `WorkerGone` where it is not the fleet's any more."""
        refused = rejoinder.refused
        if refused.type == "stale":
            self.fence = await self._backends.ledger.lift(
                self.fence, seen=_pair(refused.members.get("seen")), lease_s=self._lease_s
            )
            return self._lease_s
        if refused.type == "history_required":
            await self._fetch(await self._common(refused.members.get("have")))
        try:
            return self._take(await self._backends.ledger.move(self.fence, lease_s=self._lease_s, stay=True))
        except NoCapacity as error:
            raise WorkerGone("dropped", error.message) from None

    async def move(self, gone: WorkerGone, waited_s: float, *, accuse: bool) -> float | None:
        """Get the next attempt at another worker. Raises `NoCapacity`, `FenceLost`, `LedgerUnavailable`.

        `accuse`: mark the present one suspect. Where none came up for as long as that lasts, the old one is as good as
        any if it is well again (not where its address belongs to another worker now).
        """
        suspect_s = self._backends.settings.worker.suspect_s
        patience_over = waited_s > suspect_s and gone.reason != "wrong_worker"
        stay = patience_over and await self._backends.workers.healthy(self.url)
        with self._backends.metrics.ledger("move"):
            moved = await self._backends.ledger.move(
                self.fence,
                lease_s=self._lease_s,
                stay=stay,
                suspect_s=suspect_s if accuse else 0.0,
                broke=gone.reason != "draining",
            )
        self._refusals = 0
        return self._take(moved)

    async def accuse(self) -> None:
        """Mark the worker suspect without moving; a ledger that is away is no reason to fail."""
        try:
            await self._backends.ledger.suspect(
                self.fence.namespace, self.worker, for_s=self._backends.settings.worker.suspect_s
            )
        except BerthError as error:
            log.warning("worker.suspect_failed", worker=self.worker, detail=error.message)

    def _take(self, moved: Moved) -> float:
        self.fence, self._placement = moved.fence, moved.placement
        self._backends.order(moved.release)
        return moved.lease_s

    async def _common(self, have: object) -> int:
        """Return after how many turns the newest head lies that the worker has too."""
        known = {head for head in have if isinstance(head, str)} if isinstance(have, list) else set()
        fence = self.fence
        heads = await self._backends.ledger.heads(fence.namespace, fence.name, uid=fence.uid)
        return max((n for n, head in enumerate(heads[: self.acquired.turns + 1]) if head in known), default=0)

    async def _fetch(self, start: int) -> None:
        fence = self.fence
        with self._backends.metrics.ledger("history"):
            history = await self._backends.ledger.history(
                fence.namespace, fence.name, uid=fence.uid, start=start, stop=self.acquired.turns
            )
        self._history, self._base = history.turns, history.base

    # At the worker --------------------------------------------------------------------------------------------------

    async def run(
        self,
        work: Work,
        resume: bytes,
        on_accepted: Callable[[], None],
        on_event: Callable[[WorkerEvent], Finished | None],
    ) -> Finished:
        """POST and stream to the end. Raises `WorkerGone`, `Rejoinder`, `Broken`, or a refusal for the client."""
        reader = EventReader(self._backends.settings.worker.event_bytes)

        def accepted() -> None:
            self.accepted = True
            on_accepted()

        def heard(data: bytes) -> Finished | None:
            for event in reader.feed(data):
                watchdog.beat()
                finished = on_event(event)
                if finished is not None:
                    return finished
            return None

        async with Scope() as alive:
            watchdog = Watchdog(
                self._backends.settings.worker.stall_s,
                lambda: self._backends.workers.healthy(self.url),
                alive.interrupt,
            )
            try:
                body = self._request(work, resume)
                return await self._backends.workers.generate(self.worker, self.url, body, accepted, heard)
            except Garbled as error:
                raise WorkerGone("garbled", str(error)) from None
            except WorkerRefused as refused:
                raise self._answer(refused) from None
            finally:
                watchdog.end()
        raise WorkerGone("stalled", "silent, and not healthy")

    def _answer(self, refused: WorkerRefused) -> Exception:
        """Return what is to be raised for a refusal."""
        if refused.type in ("stale", "history_required", "duplicate"):
            self._refusals += 1
            if self._refusals >= self._backends.settings.turn.attempts_per_worker:
                return WorkerGone("refuses", str(refused))
            return Rejoinder(refused)
        if refused.status >= 500 or refused.status == 401 or (refused.type == "queue_full" and self._moved):
            return WorkerGone(refused.type if refused.type in _COUNTED else "refuses", refused.message)
        return as_refusal(refused)

    @property
    def _moved(self) -> bool:
        return self.worker != self.acquired.placement.worker

    def check(self, finished: Finished, input_ids: bytes, output: bytes) -> None:
        """Compare the worker's end with what was received. Raises `WrongEnd`."""
        if finished.completion_tokens != len(output) // 4:
            raise WrongEnd(f"{finished.completion_tokens} tokens said, {len(output) // 4} received")
        if finished.head != advance(self.acquired.parent, input_ids + output):
            raise WrongEnd("the head is not that of the ids received")

    def _request(self, work: Work, resume: bytes) -> bytes:
        fence, acquired = self.fence, self.acquired
        return _encoder.encode(
            TurnRequest(
                session=f"{fence.namespace}/{fence.name}",
                uid=fence.uid,
                turn=fence.turn,
                epoch=fence.epoch,
                attempt=fence.attempt,
                parent=acquired.parent,
                input_ids=work.input_ids,
                seed=acquired.seed,
                sampling=work.sampling,
                fingerprint=acquired.fingerprint,
                history=self._history,
                history_base=self._base,
                resume_ids=resume,
                max_tokens=acquired.max_tokens,
                logprobs=work.logprobs,
                top_logprobs=work.top_logprobs,
            )
        )


def _pair(seen: object) -> tuple[int, int]:
    match seen:
        case [int(epoch), int(attempt)]:
            return epoch, attempt
    raise WorkerGone("garbled", "stale, without the pair it has seen")
