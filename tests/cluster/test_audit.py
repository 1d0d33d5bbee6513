"""The reader of the audit log, beside a writer that is never waited for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clusterkit.audit import Audit


def line(uri: str) -> bytes:
    event = {"user": {}, "verb": "get", "requestReceivedTimestamp": "2026-01-01T00:00:00.000000Z", "requestURI": uri}
    return json.dumps(event).encode() + b"\n"


@pytest.mark.parametrize(
    "before", [b"", line("/before"), line("/" + 100_000 * "x")], ids=["first", "next", "after a long one"]
)
def test_a_line_that_is_half_written_at_the_mark_is_read_whole_later(tmp_path: Path, before: bytes) -> None:
    path, whole = tmp_path / "audit.log", line("/half")
    path.write_bytes(before + whole[:30])
    mark = Audit(path).mark()
    assert Audit(path).requests(since=mark) == []
    path.write_bytes(before + whole)
    assert [request.uri for request in Audit(path).requests(since=mark)] == ["/half"]
