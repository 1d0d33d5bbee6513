"""A counter is there before its first event: one that comes with it is no increase to Prometheus."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from berth_operator.kube.metrics import Metrics


def samples(metrics: Metrics, name: str, *labels: str) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {
        tuple(sample.labels[label] for label in labels): sample.value
        for family in families
        for sample in family.samples
        if sample.name == name
    }


def test_outcomes_are_counted_from_nothing() -> None:
    found = samples(Metrics(), "berth_operator_reconcile_total", "kind", "outcome")
    kinds, outcomes = ("fleet", "session"), ("done", "failed")
    assert found == {(kind, outcome): 0 for kind in kinds for outcome in outcomes}


def test_a_fleets_recoveries_are_counted_from_nothing() -> None:
    metrics = Metrics()
    metrics.watch_fleet("default", "tiny")
    metrics.recovered("default", "tiny", "worker_lost", 2)
    metrics.watch_fleet("default", "tiny")
    found = samples(metrics, "berth_operator_session_recoveries_total", "fleet", "reason")
    assert found == {("tiny", "worker_lost"): 2, ("tiny", "drained"): 0}
