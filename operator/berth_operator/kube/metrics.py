"""What is counted, for Prometheus. Labels are namespaces, fleets and short lists of ours: never a session or a pod.

Outcomes and recoveries are there before the first: a counter that comes with its first event is no increase to
Prometheus.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from berth_api.admin import RecoveryReason

_LOOKS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15)


class Metrics:
    """One registry an operator, so that tests may have several in a process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._reconciles = Counter(
            "berth_operator_reconcile", "Looks at an object, by outcome.", ["kind", "outcome"], registry=self.registry
        )
        self._seconds = Histogram(
            "berth_operator_reconcile_seconds",
            "How long a look at an object took.",
            ["kind"],
            buckets=_LOOKS,
            registry=self.registry,
        )
        self._depth = Gauge(
            "berth_operator_queue_depth", "Objects that wait for a look that is due.", ["kind"], registry=self.registry
        )
        self._late = Gauge(
            "berth_operator_watch_age_seconds",
            "For how long the watch has owed a change that a list has shown.",
            ["kind"],
            registry=self.registry,
        )
        self._recoveries = Counter(
            "berth_operator_session_recoveries",
            "Sessions that lost their worker and went on at another.",
            ["namespace", "fleet", "reason"],
            registry=self.registry,
        )
        self.sessions = Gauge(
            "berth_operator_fleet_sessions",
            "Sessions of a fleet by state; pending are turns that wait for a worker.",
            ["namespace", "fleet", "state"],
            registry=self.registry,
        )
        self.slots = Gauge(
            "berth_operator_fleet_slots",
            "Slots of a fleet's workers by what holds them.",
            ["namespace", "fleet", "state"],
            registry=self.registry,
        )
        self.workers = Gauge(
            "berth_operator_fleet_workers",
            "Workers of a fleet by state.",
            ["namespace", "fleet", "state"],
            registry=self.registry,
        )

        for kind in ("fleet", "session"):
            for outcome in ("done", "failed"):
                self._reconciles.labels(kind, outcome)

    def watch_fleet(self, namespace: str, fleet: str) -> None:
        """Have a fleet's recoveries counted from 0."""
        for reason in get_args(RecoveryReason):
            self._recoveries.labels(namespace, fleet, reason)

    def watch_queue(self, kind: str, depth: Callable[[], int]) -> None:
        self._depth.labels(kind).set_function(lambda: float(depth()))

    def watch_lateness(self, kind: str, late_s: Callable[[], float]) -> None:
        self._late.labels(kind).set_function(late_s)

    def recovered(self, namespace: str, fleet: str, reason: RecoveryReason, count: int) -> None:
        self._recoveries.labels(namespace, fleet, reason).inc(count)

    @contextmanager
    def look(self, kind: str) -> Iterator[None]:
        """Time and count one look, failed ones too."""
        began = time.perf_counter()
        try:
            yield
        except Exception:
            self._reconciles.labels(kind, "failed").inc()
            raise
        else:
            self._reconciles.labels(kind, "done").inc()
        finally:
            self._seconds.labels(kind).observe(time.perf_counter() - began)

    def exposition(self) -> bytes:
        return generate_latest(self.registry)
