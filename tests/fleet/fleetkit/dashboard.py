"""The dashboard's queries, for a test that has them answered by a real Prometheus."""

from __future__ import annotations

import json
from pathlib import Path

_FILE = Path(__file__).parents[3] / "charts" / "berth" / "dashboards" / "fleet.json"
QUERIES: list[str] = [
    target["expr"] for panel in json.loads(_FILE.read_text())["panels"] for target in panel.get("targets", ())
]


def filled(expr: str, namespace: str, fleet: str, over: str = "30s") -> str:
    """As Grafana sends it with that namespace and fleet chosen, over the time that a test has seen."""
    return expr.replace("$__rate_interval", over).replace("$namespace", namespace).replace("$fleet", fleet)


def asking(text: str) -> str:
    """Return the one query that has `text` in it."""
    (found,) = (expr for expr in QUERIES if text in expr)
    return found
