"""The page of metrics is what the processes serve: each name, its type and its labels; and Prometheus' linter agrees."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from berth_gateway.metrics import Metrics
from berth_operator.kube.metrics import Metrics as OperatorMetrics
from berth_worker.cache.integrity import Memory
from berth_worker.engine.stats import State
from berth_worker.server.metrics import exposition

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(?P<name>\w+)` \| (?P<type>\w+) \|(?P<labels>[^|]*)\|", re.MULTILINE)


@dataclass(frozen=True)
class Metric:
    name: str
    type: str
    labels: frozenset[str]


def told(section: str) -> set[Metric]:
    part = next(part for part in PAGE.read_text().split("\n## ") if part.startswith(section))
    return {Metric(row["name"], row["type"], frozenset(re.findall(r"\w+", row["labels"]))) for row in ROW.finditer(part)}


def gateway() -> str:
    metrics = Metrics()
    metrics.refused.labels("too_long")
    with metrics.ledger("acquire"):
        pass
    return metrics.exposition().decode()


def worker() -> str:
    memory = Memory(**dict.fromkeys((field.name for field in fields(Memory)), 1))
    state = dict.fromkeys((field.name for field in fields(State)), 1)
    state |= {"memory": memory, "turns": {"stop": 1}, "releases": {"evicted": 1}}
    return exposition(State(**state), slots=8, tasks=1).decode()


def operator() -> str:
    metrics = OperatorMetrics()
    with metrics.look("fleet"):
        pass
    metrics.watch_queue("fleet", lambda: 0)
    metrics.watch_lateness("fleet", lambda: 0.0)
    metrics.recovered("default", "default", "drained", 1)
    for gauge in (metrics.sessions, metrics.slots, metrics.workers):
        gauge.labels("default", "default", "some")
    return metrics.exposition().decode()


SERVED = {"Gateway": gateway, "Operator": operator, "Worker": worker}


def served(text: str) -> set[Metric]:
    found = set()
    for family in text_string_to_metric_families(text):
        samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
        if not samples:
            continue
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in samples for label in sample.labels} - {"le"}
        found.add(Metric(name, family.type, frozenset(labels)))
    return found


@pytest.mark.parametrize("section", SERVED)
def test_every_metric_is_told(section: str) -> None:
    assert told(section) == served(SERVED[section]())


@pytest.mark.parametrize("section", SERVED)
def test_prometheus_own_linter_has_nothing_to_say(section: str) -> None:
    promtool = shutil.which("promtool")
    assert promtool, "no promtool on PATH: install Prometheus (Debian, Ubuntu: apt-get install prometheus)"
    said = subprocess.run(
        [promtool, "check", "metrics"], input=SERVED[section](), capture_output=True, text=True, check=False
    )
    assert (said.returncode, said.stderr, said.stdout) == (0, "", "")
