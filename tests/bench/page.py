"""docs/benchmarks.md has parts that are measured apart: each may be written anew without the others."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
OPERATOR = "\n## The operator\n"
PEERS = "\n## Beside other engines\n"
GPU = "\n## What no GPU has seen\n"
"""Written by hand, and last."""


def write(*, single: str | None = None, operator: str | None = None, peers: str | None = None) -> None:
    """Replace what is given; `operator` and `peers` come after the headings of those names."""
    first, _, rest = PAGE.read_text().partition(OPERATOR)
    second, _, rest = rest.partition(PEERS)
    third, _, last = rest.partition(GPU)
    parts = [old if new is None else new for old, new in ((first, single), (second, operator), (third, peers))]
    PAGE.write_text(f"{parts[0]}{OPERATOR}{parts[1]}{PEERS}{parts[2]}{GPU}{last}")
