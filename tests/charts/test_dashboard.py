"""The dashboard asks for what there is: every panel has queries, they parse, and each metric and label is told of."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "charts" / "berth" / "dashboards" / "fleet.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
ROW = re.compile(r"^\| `(?P<name>\w+)` \| (?P<type>\w+) \|(?P<labels>[^|]*)\|", re.MULTILINE)
TOLD = {
    row["name"]: (row["type"], set(re.findall(r"\w+", row["labels"])))
    for row in ROW.finditer((ROOT / "docs" / "metrics.md").read_text())
}
OF_THE_TARGET = {"namespace", "fleet", "pod"}
"""Labels that a worker's scrape target gives it."""


def filled(expr: str) -> str:
    """As Grafana sends it, with everything chosen."""
    return expr.replace("$__rate_interval", "1m").replace("$namespace", ".*").replace("$fleet", ".*")


def test_every_panel_asks_something_and_says_what() -> None:
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"], panel["title"]
        assert panel["targets"], panel["title"]
        assert all(target["expr"].strip() and target["legendFormat"] for target in panel["targets"]), panel["title"]


def test_panels_stand_beside_one_another() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x, y in itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"]))
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def datasources(part: Any) -> set[str]:
    """Every data source named anywhere in it."""
    if isinstance(part, list):
        return set().union(*map(datasources, part))
    if not isinstance(part, dict):
        return set()
    here = {part["datasource"]["uid"]} if "datasource" in part else set()
    return here.union(*map(datasources, part.values()))


def test_the_data_source_and_the_fleet_are_chosen_by_who_looks() -> None:
    assert datasources(DASHBOARD) == {"${datasource}"}
    variables = {variable["name"]: variable["type"] for variable in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource": "datasource", "namespace": "query", "fleet": "query"}


def test_every_query_parses(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    assert promtool, "no promtool on PATH: install Prometheus (Debian, Ubuntu: apt-get install prometheus)"
    rules = [{"record": f"panel:{number}", "expr": filled(expr)} for number, (_, expr) in enumerate(QUERIES)]
    path = tmp_path / "rules.yaml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    checked = subprocess.run([promtool, "check", "rules", path], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(("title", "expr"), QUERIES)
def test_every_metric_and_label_exists(title: str, expr: str) -> None:
    (name,) = set(re.findall(r"berth_\w+", expr))
    family = re.sub(r"_(bucket|sum|count)$", "", name) if name not in TOLD else name
    kind, labels = TOLD[family]
    assert (kind == "histogram") == (name != family), title
    assert (kind == "counter" or name != family) == bool(re.search(r"\b(rate|increase)\(", expr)), title
    grouped = set(re.findall(r"\w+", "".join(re.findall(r"by \(([^)]*)\)", expr))))
    chosen = set(re.findall(r"(\w+)=~?\"", expr))
    known = labels | ({"le"} if name.endswith("_bucket") else set())
    known |= OF_THE_TARGET if name.startswith("berth_worker_") else set()
    assert grouped | chosen <= known, title


def test_legends_name_labels_that_are_left() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            grouped = set(re.findall(r"\w+", "".join(re.findall(r"by \(([^)]*)\)", target["expr"])))) - {"le"}
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) == grouped, panel["title"]
