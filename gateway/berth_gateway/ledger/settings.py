"""Times and limits of the ledger, each with its unit and the reason for its default."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LedgerSettings:
    """Handed to `Ledger.connect`."""

    socket_timeout_s: float = 1.0
    """Longest silence of Redis before the connection is given up: far above a script's time (under 1 ms)."""
    deadline_s: float = 2.5
    """Longest a call may take, retries included: a holder must still be able to stop itself within its 5 s lease."""
    retry_first_s: float = 0.02
    """First pause before a retry, doubled up to `retry_most_s`: a restarting Redis is back in tens of milliseconds."""
    retry_most_s: float = 0.25
    connections: int = 4
    """Batches in flight at once. Few: calls that wait for a connection leave together, which is cheaper than more."""
    batch_calls: int = 64
    """Most calls in one batch, so that one slow batch delays a bounded number of sessions."""
    wait_replicas: int = 0
    """Replicas that must have a commit before it is acknowledged (0: the primary alone)."""
    wait_timeout_s: float = 0.5
    """Longest wait for them before `DurabilityUnknown`; well below `socket_timeout_s`."""
    tombstone_s: float = 86_400.0
    """How long a closed uid is remembered: far longer than any controller works from a stale list."""
    outcomes_kept: int = 1024
    """Committed turns a session keeps the outcome of (the tokens stay for ever): a client's retry comes in minutes."""
    aborts_kept: int = 64
    """Aborted turns a session remembers: only the newest are ever asked for."""
    changes_kept: int = 10_000
    """Entries of a namespace's change stream: a reader further behind lists everything again."""
    orphan_s: float = 10.0
    """How long after its lease a turn that no one took over is left alone by `reap`: its owner may yet commit it."""
    waiting_s: float = 3.0
    """How long one refused `acquire` counts as a waiting turn: longer than a gateway's pause between two tries."""

    def constants(self) -> dict[str, int | str]:
        """Return what the scripts need to know, in their units."""
        return {
            "aborts_kept": self.aborts_kept,
            "changes_kept": self.changes_kept,
            "orphan_us": round(self.orphan_s * 1e6),
            "outcomes_kept": self.outcomes_kept,
            "tombstone_ms": round(self.tombstone_s * 1e3),
            "waiting_us": round(self.waiting_s * 1e6),
        }
