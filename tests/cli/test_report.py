"""The lines of `berth up`."""

from __future__ import annotations

import json
from pathlib import Path

from berth_cli.report import JsonReport, PlainReport
from berth_operator.local.events import FleetReady, Problem, RedisUp, WorkerDied, WorkerUp
from berth_operator.local.settings import LocalSettings
from berth_operator.local.state_dir import WorkerEntry

WORKER = WorkerEntry("default-0-aa.boot", "http://127.0.0.1:4", 7)
READY = FleetReady(
    gateway="http://127.0.0.1:1",
    gateways=["http://127.0.0.1:1"],
    admin="http://127.0.0.1:2",
    admins=["http://127.0.0.1:2"],
    redis="redis://127.0.0.1:3/0",
    workers=[WORKER],
    state_dir="/state",
)


def test_json_begins_with_the_ready_line(capsys) -> None:
    report = JsonReport()
    for event in (RedisUp("redis://127.0.0.1:3/0", 5), WorkerUp("early.boot", "http://e", 6), READY):
        report(event)
    (line,) = capsys.readouterr().out.splitlines()
    word = json.loads(line)
    assert word["event"] == "ready"
    assert word["gateway"] == word["gateways"][0]
    assert word["workers"] == [{"id": "default-0-aa.boot", "url": "http://127.0.0.1:4", "pid": 7}]
    assert {"admin", "redis"} <= word.keys()


def test_then_comes_a_line_for_each_change(capsys) -> None:
    report = JsonReport()
    report(READY)
    report(WorkerDied("w.1", 7, "killed"))
    report(WorkerUp("w.2", "http://w", 8))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()[1:]]
    assert lines[0] == {"event": "worker_died", "id": "w.1", "pid": 7, "reason": "killed"}
    assert lines[1] == {"event": "worker", "id": "w.2", "url": "http://w", "pid": 8}


def test_people_get_plain_text_where_there_is_no_terminal(capsys) -> None:
    report = PlainReport(LocalSettings(Path("/state"), "berth-tiny"))
    for event in (WorkerUp("w.2", "http://w", 8), READY, Problem("[odd] text")):
        report(event)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "w.2 at http://w, pid 8" in out
    assert "[odd] text" in out
