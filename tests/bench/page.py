"""docs/benchmarks.md has parts that are measured apart: each may be written anew without the others."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
OPERATOR = "\n## The operator\n"
GPU = "\n## What no GPU has seen\n"
"""Written by hand, and last."""


def write(*, single: str | None = None, operator: str | None = None) -> None:
    """Replace what is given; `operator` comes after the heading of that name."""
    before, _, rest = PAGE.read_text().partition(OPERATOR)
    after, _, last = rest.partition(GPU)
    parts = before if single is None else single, after if operator is None else operator
    PAGE.write_text(f"{parts[0]}{OPERATOR}{parts[1]}{GPU}{last}")
