"""docs/benchmarks.md has two parts, measured apart: each may be written anew without the other."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
OPERATOR = "\n## The operator\n"


def write(*, single: str | None = None, operator: str | None = None) -> None:
    """Replace what is given; `operator` comes after the heading of that name."""
    before, _, after = PAGE.read_text().partition(OPERATOR)
    PAGE.write_text(f"{before if single is None else single}{OPERATOR}{after if operator is None else operator}")
