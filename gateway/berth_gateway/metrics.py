"""What is counted, for Prometheus. Labels come from short lists of ours: never a session, a turn or a worker.

Outcomes and losses exist from the start: a counter that appears with its first event is no increase to Prometheus.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

OUTCOMES = ("committed", "aborted", "unknown")
LOSSES = (
    "connection_lost",
    "connection_refused",
    "draining",
    "dropped",
    "garbled",
    "internal_error",
    "queue_full",
    "refuses",
    "stalled",
    "timeout",
    "unauthorized",
    "wrong_head",
    "wrong_worker",
)
"""What a turn can lose its worker by."""
_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SLOW = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_RECOVERY = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_LEDGER = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5)


class Metrics:
    """One registry a gateway, so that tests may have several in a process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.turns = Counter(
            "berth_gateway_turns", "Turns that ended, by outcome.", ["outcome"], registry=self.registry
        )
        self.refused = Counter(
            "berth_gateway_refused", "Requests for a turn that were refused, by type.", ["type"], registry=self.registry
        )
        self.moves = Counter(
            "berth_gateway_moves", "Moves of a turn to another worker, by cause.", ["reason"], registry=self.registry
        )
        self.recovery_s = Histogram(
            "berth_gateway_recovery_seconds",
            "From the loss of a turn's worker to what its client hears next, by what the first loss was.",
            ["reason"],
            buckets=_RECOVERY,
            registry=self.registry,
        )
        self.running = Gauge("berth_gateway_turns_running", "Turns this gateway runs.", registry=self.registry)
        self.turn_s = Histogram(
            "berth_gateway_turn_seconds", "From a turn's start to its end.", buckets=_SLOW, registry=self.registry
        )
        self.first_token_s = Histogram(
            "berth_gateway_first_token_seconds",
            "From the arrival of the request to its first token.",
            buckets=_FAST,
            registry=self.registry,
        )
        self.next_token_s = Histogram(
            "berth_gateway_next_token_seconds", "Between two token events.", buckets=_FAST, registry=self.registry
        )
        self.ledger_s = Histogram(
            "berth_gateway_ledger_seconds",
            "Calls of the ledger by operation.",
            ["operation"],
            buckets=_LEDGER,
            registry=self.registry,
        )

        for outcome in OUTCOMES:
            self.turns.labels(outcome)
        for reason in LOSSES:
            self.moves.labels(reason)
            self.recovery_s.labels(reason)

    @contextmanager
    def ledger(self, operation: str) -> Iterator[None]:
        """Time one call of the ledger, failed ones too."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.ledger_s.labels(operation).observe(time.perf_counter() - began)

    def exposition(self) -> bytes:
        return generate_latest(self.registry)
