"""Prometheus' view of the engine, made from its latest snapshot when it is asked for: nothing to keep in step.

Each cause of a release is there from the start: a counter that comes with its first event is no increase to Prometheus.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE
from prometheus_client.exposition import generate_latest

from berth_worker.cache.sessions import Cause

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.core import Metric

    from berth_worker.engine.stats import State

__all__ = ["CONTENT_TYPE", "exposition"]


class _Snapshot:
    def __init__(self, state: State, slots: int, tasks: int) -> None:
        self._state, self._slots, self._tasks = state, slots, tasks

    def collect(self) -> Iterator[Metric]:
        state, memory = self._state, self._state.memory
        yield GaugeMetricFamily("berth_worker_tasks", "Tasks of the event loop, this answer's among them.", self._tasks)
        yield GaugeMetricFamily("berth_worker_requests_running", "Requests in the batch.", state.running)
        yield GaugeMetricFamily("berth_worker_requests_queued", "Requests that wait.", state.queued)
        rows = {
            "active": state.lent,
            "idle_held": state.resident - state.lent,
            "free": self._slots - memory.rows_held,
            "sessionless": memory.rows_held - state.resident,
        }
        yield _by("berth_worker_slots", "Slots by what holds them.", "state", rows)
        kinds = ("available", "evictable", "protected", "session_held", "uncached")
        tokens = {kind: getattr(memory, kind) for kind in kinds}
        yield _by("berth_worker_kv_tokens", "KV tokens, in whole pages, by state.", "state", tokens)
        yield CounterMetricFamily("berth_worker_prompt_tokens", "Prompt tokens admitted.", state.prompt_tokens)
        yield CounterMetricFamily("berth_worker_cached_tokens", "Prompt tokens with KV held.", state.cached_tokens)
        yield CounterMetricFamily("berth_worker_generated_tokens", "Tokens sampled.", state.generated_tokens)
        yield CounterMetricFamily(
            "berth_worker_reprefilled_tokens",
            "Tokens computed again, because their KV was wiped here or lies elsewhere.",
            state.reprefilled_tokens,
        )
        yield CounterMetricFamily("berth_worker_steps", "Forward passes.", state.steps)
        yield CounterMetricFamily("berth_worker_retracts", "Requests that had to wait again.", state.retracts)
        releases = CounterMetricFamily("berth_worker_slot_releases", "Slots wiped, by cause.", labels=["cause"])
        yield _fill(releases, {**dict.fromkeys(get_args(Cause), 0), **state.releases})
        turns = CounterMetricFamily("berth_worker_turns", "Requests that ended, by outcome.", labels=["outcome"])
        yield _fill(turns, state.turns)


def _by(name: str, text: str, label: str, values: Mapping[Any, int]) -> Metric:
    return _fill(GaugeMetricFamily(name, text, labels=[label]), values)


def _fill(family: GaugeMetricFamily | CounterMetricFamily, values: Mapping[Any, int]) -> Metric:
    for value, number in values.items():
        family.add_metric([value], number)
    return family


def exposition(state: State, slots: int, tasks: int) -> bytes:
    """Return `state` in Prometheus' text format; `tasks` are those that the event loop has now."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(state, slots, tasks))
    return generate_latest(registry)
