"""What can be refused, and how it is said over HTTP.

    BerthError
    ├── InvalidRequest 400          NoSuchSession 404          TooLong 413
    ├── Unauthorized 401            NoSuchFleet 404            IdempotencyMismatch 422
    ├── Forbidden 403               NoSuchTurn 404             RateLimited, QueueFull 429
    ├── HistoryLost 410             CursorGone 410             NoCapacity, LedgerUnavailable, Draining 503
    ├── Conflict 409
    │   ├── TurnInFlight, HeadMismatch, SessionClosing, ManagedByResource, SessionExists   (gateway)
    │   └── Stale, Duplicate, HistoryRequired                                              (worker)
    └── WrongWorker 421

One class a `type`; `type` and status are the contract, the message is for people. `members` are the machine-readable
facts that go beside them (`field`, `retry_after`, `have`, ...).
"""

from __future__ import annotations

from typing import Any, ClassVar


class BerthError(Exception):
    """A refusal with an HTTP status and a `type` that programs may rely on."""

    type: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500

    def __init__(self, message: str, **members: Any) -> None:
        super().__init__(message)
        self.message = message
        self.members = members

    def problem(self) -> dict[str, Any]:
        """Return the body of an RFC 9457 `application/problem+json` answer."""
        return {"type": self.type, "status": self.status, "detail": self.message, **self.members}


class InvalidRequest(BerthError):
    """The request itself is at fault; `field` names the part."""

    type, status = "invalid_request", 400


class Unauthorized(BerthError):
    type, status = "unauthorized", 401


class Forbidden(BerthError):
    type, status = "forbidden", 403


class NoSuchSession(BerthError):
    type, status = "no_such_session", 404


class NoSuchFleet(BerthError):
    type, status = "no_such_fleet", 404


class NoSuchTurn(BerthError):
    type, status = "no_such_turn", 404


class NoSuchModel(BerthError):
    type, status = "no_such_model", 404


class HistoryLost(BerthError):
    """The ledger no longer has tokens that it once acknowledged."""

    type, status = "history_lost", 410


class CursorGone(BerthError):
    """A `changes` cursor is too old or of another ledger: list again."""

    type, status = "cursor_gone", 410


class TooLong(BerthError):
    type, status = "too_long", 413


class IdempotencyMismatch(BerthError):
    type, status = "idempotency_mismatch", 422


class RateLimited(BerthError):
    type, status = "rate_limited", 429


class QueueFull(BerthError):
    type, status = "queue_full", 429


class NoCapacity(BerthError):
    type, status = "no_capacity", 503


class LedgerUnavailable(BerthError):
    type, status = "ledger_unavailable", 503


class Draining(BerthError):
    """The process is going away and takes no new work."""

    type, status = "draining", 503


class Conflict(BerthError):
    """The request is sound, the state does not allow it now."""

    type, status = "conflict", 409


class TurnInFlight(Conflict):
    type = "turn_in_flight"


class HeadMismatch(Conflict):
    type = "head_mismatch"


class SessionClosing(Conflict):
    type = "session_closing"


class ManagedByResource(Conflict):
    type = "managed_by_resource"


class SessionExists(Conflict):
    type = "session_exists"


class Stale(Conflict):
    """A worker has seen a higher (epoch, attempt); `seen` is that pair."""

    type = "stale"


class Duplicate(Conflict):
    """A worker has seen this very (epoch, attempt)."""

    type = "duplicate"


class HistoryRequired(Conflict):
    """A worker lacks the parent's tokens; `have` lists the heads it knows, newest first."""

    type = "history_required"


class WrongWorker(BerthError):
    """The call names another worker id than the one that answers."""

    type, status = "wrong_worker", 421
