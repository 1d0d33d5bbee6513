"""The picture of `berth top`."""

from __future__ import annotations

import io

from rich.console import Console

from berth_api.admin import WorkerView
from berth_api.wire import ModelInfo, WorkerInfo
from berth_cli import top
from berth_cli.worker_client import Memory, Rows, ServerInfo
from berth_operator.local.state_dir import FleetFile, GatewayEntry, RedisEntry

FLEET = FleetFile(
    pid=1,
    model="berth-tiny",
    namespace="default",
    fleet="default",
    redis=RedisEntry("redis://127.0.0.1:3/0", 2),
    gateways=[GatewayEntry("http://g", "http://a", 3)],
    workers=[],
    admin_token_file="a",
    worker_token_file="w",
)
VIEW = WorkerView("default-0-aa.boot", "default", "default", "http://w", 4, "f", False, False, ["a"], ["b", "c"])
MODEL = ModelInfo("berth-tiny", "f", 256, 4096, None, [0], {})


def drawn(rows: list[top.Row] | None) -> str:
    out = Console(file=io.StringIO(), width=200)
    out.print(top.picture(FLEET, rows))
    return out.file.getvalue()


def info(**memory: int) -> ServerInfo:
    full = {"available": 0, "evictable": 0, "protected": 0, "session_held": 0, "uncached": 0, "total": 100} | memory
    return ServerInfo(Memory(**full, rows=Rows(1, 4)), WorkerInfo("w", 1, MODEL, 4, 1, 5, 3))


def test_shows_slots_and_pool_of_each_worker() -> None:
    text = drawn([top.Row(VIEW, info(available=60, session_held=30, uncached=10), 77)])
    line = next(line for line in text.splitlines() if "default-0-aa" in line)
    assert line.split() == ["default-0-aa", "77", "serving", "4", "1", "2", "5", "40/100", "##=====......."]
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80


def test_a_worker_that_does_not_answer_is_silent() -> None:
    assert "silent" in drawn([top.Row(VIEW, None, 77)])


def test_no_gateway_is_said() -> None:
    assert "no gateway answers" in drawn(None)


def test_the_bar_shows_the_smallest_share_and_never_overflows() -> None:
    assert top.bar(info(uncached=1, available=99).memory).plain == "#" + "." * 13
    assert len(top.bar(info(uncached=34, session_held=33, evictable=33).memory).plain) == 14
