"""Three benches write one page: none may take what another wrote."""

from __future__ import annotations

import page
import pytest

WHOLE = (
    "# Benchmarks\n\nold\n"
    "\n## The operator\n\nits old\n"
    "\n## Beside other engines\n\ntheir old\n"
    "\n## What no GPU has seen\n\nby hand\n"
)


@pytest.fixture
def file(tmp_path, monkeypatch):
    path = tmp_path / "benchmarks.md"
    path.write_text(WHOLE)
    monkeypatch.setattr(page, "PAGE", path)
    return path


@pytest.mark.parametrize(
    ("given", "old"), [("single", "# Benchmarks\n\nold\n"), ("operator", "\nits old\n"), ("peers", "\ntheir old\n")]
)
def test_a_part_replaces_itself_alone(file, given, old):
    page.write(**{given: "new\n"})
    assert file.read_text() == WHOLE.replace(old, "new\n")


def test_writing_nothing_changes_nothing(file):
    page.write()
    assert file.read_text() == WHOLE
