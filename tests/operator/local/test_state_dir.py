"""The state directory: private, locked, and honest about what runs from it."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from berth_operator.errors import StateDirInUse, StateDirUnusable
from berth_operator.local.state_dir import FleetFile, RedisEntry, StateDir, read_fleet, read_token


def fleet(pid: int) -> FleetFile:
    return FleetFile(pid, "m", "default", "default", RedisEntry("redis://x", 1), [], [], "a", "w")


async def test_only_the_owner_gets_in(tmp_path: Path) -> None:
    state = await StateDir.open(tmp_path / "deep" / "state", 0.0)
    token = state.new_token("admin")
    state.publish(fleet(os.getpid()))
    assert stat.S_IMODE(state.path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (token, state.path / "fleet.json")} == {0o600}
    state.close()


async def test_every_run_has_fresh_tokens(tmp_path: Path) -> None:
    state = await StateDir.open(tmp_path, 0.0)
    first = read_token(str(state.new_token("admin")))
    second = read_token(str(state.new_token("admin")))
    assert first != second
    assert len(first) >= 32
    state.close()


async def test_is_one_fleets_at_a_time(tmp_path: Path) -> None:
    state = await StateDir.open(tmp_path, 0.0)
    with pytest.raises(StateDirInUse, match=f"{tmp_path} is in use .*pid {os.getpid()}"):
        await StateDir.open(tmp_path, 0.0)
    state.close()
    (await StateDir.open(tmp_path, 0.0)).close()


async def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateDirUnusable, match="file"):
        await StateDir.open(tmp_path / "file" / "state", 0.0)


async def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "admin.token").mkdir()
    (tmp_path / "fleet.json").mkdir()
    state = await StateDir.open(tmp_path, 0.0)
    with pytest.raises(StateDirUnusable, match=r"cannot write .*admin\.token: "):
        state.new_token("admin")
    with pytest.raises(StateDirUnusable, match=r"cannot write .*fleet\.json: "):
        state.publish(fleet(os.getpid()))
    state.close()
    (await StateDir.open(tmp_path, 0.0)).close()


async def test_tells_what_runs(tmp_path: Path) -> None:
    state = await StateDir.open(tmp_path, 0.0)
    state.publish(fleet(os.getpid()))
    assert read_fleet(tmp_path) == fleet(os.getpid())
    state.close()
    with pytest.raises(StateDirUnusable, match="no fleet runs"):
        read_fleet(tmp_path)


@pytest.fixture
def gone() -> int:
    """The pid of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


async def test_the_file_of_a_killed_fleet_is_no_fleet(tmp_path: Path, gone: int) -> None:
    state = await StateDir.open(tmp_path, 0.0)
    state.publish(fleet(gone))
    with pytest.raises(StateDirUnusable, match="no fleet runs"):
        read_fleet(tmp_path)
    state.close()


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "fleet.json").write_text("{")
    with pytest.raises(StateDirUnusable, match=r"fleet\.json is not a fleet's file"):
        read_fleet(tmp_path)
