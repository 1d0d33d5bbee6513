"""docs/benchmarks.md has three parts, measured apart: each may be written anew without the others."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
OPERATOR = "\n## The operator\n"
PEERS = "\n## Beside other engines\n"


def write(*, single: str | None = None, operator: str | None = None, peers: str | None = None) -> None:
    """Replace what is given; `operator` and `peers` come after the headings of those names."""
    before, _, rest = PAGE.read_text().partition(OPERATOR)
    middle, _, after = rest.partition(PEERS)
    parts = [old if new is None else new for old, new in ((before, single), (middle, operator), (after, peers))]
    PAGE.write_text(f"{parts[0]}{OPERATOR}{parts[1]}{PEERS}{parts[2]}")
