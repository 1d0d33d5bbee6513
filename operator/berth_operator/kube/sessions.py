"""One look at a session: tell the gateways what its resource wants, and the resource what became of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Literal, NamedTuple

import structlog
from pydantic import ValidationError

from berth_api.admin import AdminSession, SessionPut
from berth_api.crd import SessionSpec, SessionStatus, StreamingSession, seconds
from berth_operator.admin_client import AdminClient
from berth_operator.errors import AdminRefused, AdminUnavailable
from berth_operator.kube.absences import Gone
from berth_operator.kube.cluster import Cluster
from berth_operator.kube.ledger_view import LedgerView
from berth_operator.kube.metrics import Metrics
from berth_operator.kube.notices import Notice, tell
from berth_operator.kube.resources import explain, read
from berth_operator.kube.session_status import UNANSWERED, FleetWord, Refusal, condition, invalid, judge, reason
from berth_operator.kube.status_writer import StatusWriter
from berth_operator.kube.store import Body, Key, Store, key_of, version_of
from berth_operator.model import FleetKey

log = structlog.get_logger("berth_operator.sessions")

WORTH_TELLING: dict[str, Literal["Normal", "Warning"]] = {
    "HistoryLost": "Warning",
    "NameConflict": "Warning",
    "FleetNotFound": "Warning",
    "Refused": "Warning",
    "IdleTimeout": "Normal",
}
"""Reasons of a session's Ready that somebody should read about; the others come and go by themselves."""


class Answer(NamedTuple):
    """What the gateways have for a resource: a session, or why there is none."""

    record: AdminSession | None
    refusal: Refusal | None


class Seen(NamedTuple):
    """All that a look at a session goes by, time left aside."""

    version: int
    record: AdminSession | None
    fleet: FleetWord | None


class Sessions:
    """`word(fleet)` says how its fleet is; `pod_of(worker id)` names a worker's pod."""

    def __init__(
        self,
        store: Store,
        cluster: Cluster,
        *,
        admin: AdminClient,
        ledger: LedgerView,
        writer: StatusWriter,
        metrics: Metrics,
        clock: Callable[[], float],
        word: Callable[[FleetKey], FleetWord | None],
        pod_of: Callable[[str], str],
    ) -> None:
        self._store = store
        self._cluster = cluster
        self._admin = admin
        self._ledger = ledger
        self._writer = writer
        self._metrics = metrics
        self._clock = clock
        self._word = word
        self._pod_of = pod_of
        self._settled: dict[Key, Seen] = {}
        """Of a session for which the last look found nothing to do, what it went by: the same again is as it was."""

    async def look(self, key: Key) -> float | None:
        """Return in how many seconds to look again. Raises AdminUnavailable while nobody can say how the session is."""
        body, settled = self._store.get("session", key), self._settled.pop(key, None)
        if body is None:
            return None
        fleet = FleetKey(key.namespace, body["spec"].get("fleet", "default"))
        seen = Seen(version_of(body), self._ledger.get(key), self._word(fleet))
        if seen == settled:
            self._settled[key] = seen
            return None
        try:
            resource = read(StreamingSession, body)
        except ValidationError as error:
            log.warning("a resource makes no sense", session=str(key), error=explain(error))
            await self._refuse(body, explain(error))
            return None
        if not self._ledger.knows(key.namespace):
            if self._ledger.available is False:
                await self._unanswered(body, resource, seen)
            return None  # Once it is known all sessions there are looked at.
        try:
            answer = await self._wish(key, body["metadata"]["uid"], resource)
        except AdminUnavailable:
            await self._unanswered(body, resource, seen)
            raise
        if seen.fleet is None:
            return None  # It is about to be looked at, and then all its sessions are.
        return await self._say(body, resource, seen, answer)

    async def close(self, gone: Gone) -> None:
        """The resource of that uid is gone: so is its session, or it stays as its deletionPolicy says."""
        if gone.retain:
            with suppress(AdminRefused):  # It is closed for good, or was never opened: there is nothing to keep.
                await self._retain(gone)
        await self._admin.close_session(*gone.key, gone.uid)

    async def _retain(self, gone: Gone) -> None:
        """Tell the ledger of a policy that was changed a moment before the deletion: no look may have come between."""
        known = await self._admin.session(*gone.key)
        if (known.uid, known.origin, known.deletion_policy) == (gone.uid, "cr", "Close"):
            await self._admin.put_session(
                *gone.key,
                SessionPut(
                    uid=gone.uid,
                    fleet=known.fleet,
                    idle_timeout_s=known.idle_timeout_s,
                    hibernate_after_s=known.hibernate_after_s,
                    max_tokens=known.max_tokens,
                    deletion_policy="Retain",
                    on_worker_failure=known.on_worker_failure,
                    suspend=known.suspended,
                ),
            )

    async def _wish(self, key: Key, uid: str, resource: StreamingSession) -> Answer:
        """Have the ledger's session as the resource wants it; ask only where it is not so already."""
        known = self._ledger.get(key)
        record = known if known is not None and known.uid == uid else None
        if record is not None and not _differs(record, resource.spec):
            return Answer(record, None)
        try:
            found = await self._admin.put_session(*key, _put(uid, resource, record))
        except AdminRefused as error:
            return Answer(None, Refusal(error.type, str(error), str(error.members.get("reason", ""))))
        self._ledger.learned(key, found)
        return Answer(found, None)

    async def _unanswered(self, body: Body, resource: StreamingSession, seen: Seen) -> None:
        """No gateway answers. What was said of the session stays, for it may be true; of a new one this is said."""
        if not reason(resource.status):
            await self._say(body, resource, seen, Answer(None, UNANSWERED))

    async def _refuse(self, body: Body, why: str) -> None:
        """As above: one that is there goes on as it was, so what was said of it may be true still."""
        if not (body.get("status") or {}).get("conditions"):
            await self._writer.write(body, invalid(body["metadata"]["generation"], why, self._clock()))

    async def _say(self, body: Body, resource: StreamingSession, seen: Seen, answer: Answer) -> float | None:
        """Write its status; return in how many seconds to look again where it is too early for that."""
        now = self._clock()
        status = judge(
            generation=resource.metadata["generation"],
            record=answer.record,
            refusal=answer.refusal,
            fleet=seen.fleet or FleetWord(exists=True),
            pod_of=self._pod_of,
            before=resource.status,
            now=now,
        )
        early = self._writer.early_s(body, status)
        if early > 0:
            return early
        # Before the status: whoever is killed between the two tells it again, and is told that it is known.
        recovered = _recoveries(status) - _recoveries(resource.status)
        await self._tell(body, resource.status, status, recovered, now)
        outcome = await self._writer.write(body, status)
        key = key_of(body)
        if outcome == "same" and _is_settled(answer, seen):
            self._settled[key] = seen
        last = answer.record.last_recovery if answer.record is not None else None
        if outcome == "written" and recovered > 0 and last is not None:
            self._metrics.recovered(key.namespace, resource.spec.fleet, last.reason, recovered)
        return None

    async def _tell(
        self, body: Body, before: SessionStatus | None, status: SessionStatus, recovered: int, now: float
    ) -> None:
        last, ready = status.last_recovery, condition(status, "Ready")
        if recovered > 0 and last is not None:
            occasion = f"recovery {_recoveries(status)}"
            message = f"went on at {last.to} after {last.from_} was lost or drained ({last.reason}); {occasion}"
            await tell(self._cluster, body, Notice("Normal", "Recovered", message, occasion), now)
        kind = WORTH_TELLING.get(ready.reason)
        if kind is not None and ready.reason != reason(before):
            await tell(self._cluster, body, Notice(kind, ready.reason, ready.message), now)


def _is_settled(answer: Answer, seen: Seen) -> bool:
    """Whether the same is answered as long as the same is seen: all is as wanted, or its fleet has no worker yet."""
    if answer.refusal is None:
        return answer.record is seen.record
    return answer.refusal.type == "no_such_fleet" and seen.fleet is not None and seen.fleet.usable == 0


def _recoveries(status: SessionStatus | None) -> int:
    return (status.recoveries if status is not None else None) or 0


def _differs(record: AdminSession, spec: SessionSpec) -> bool:
    """Whether the ledger's session is not what the spec says, or has lost its worker and wants another."""
    settings = (
        record.idle_timeout_s,
        record.hibernate_after_s,
        record.max_tokens,
        record.on_worker_failure,
        record.deletion_policy,
        record.suspended,
    )
    return record.stranded or settings != _settings(spec)


def _settings(spec: SessionSpec) -> tuple[object, ...]:
    return (
        seconds(spec.idle_timeout) if spec.idle_timeout else None,
        seconds(spec.hibernate_after) if spec.hibernate_after else None,
        spec.max_tokens,
        spec.on_worker_failure.lower(),
        spec.deletion_policy,
        spec.suspend,
    )


def _put(uid: str, resource: StreamingSession, record: AdminSession | None) -> SessionPut:
    """A slot is asked for where the session is new, has lost its own, or was suspended; later its turns do that."""
    spec = resource.spec
    history = resource.status.history if resource.status else None
    return SessionPut(
        uid=uid,
        fleet=spec.fleet,
        idle_timeout_s=seconds(spec.idle_timeout) if spec.idle_timeout else None,
        hibernate_after_s=seconds(spec.hibernate_after) if spec.hibernate_after else None,
        max_tokens=spec.max_tokens,
        deletion_policy=spec.deletion_policy,
        on_worker_failure="abort" if spec.on_worker_failure == "Abort" else "continue",
        suspend=spec.suspend,
        bind=not spec.suspend and (record is None or record.stranded or record.suspended),
        head=history.head if history else None,
        turns=history.turns if history else None,
    )
