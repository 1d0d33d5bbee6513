"""How `berth up` ends: by a signal with nothing left and exit code 0, and killed with nothing left either."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from berth_cli.up import flags
from berth_operator.local.state_dir import read_fleet

UP = Path(__file__).parent / "fakes" / "up.py"
PATIENCE_S = 15.0


@pytest.fixture
def up(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A `berth up --json` that has said it is ready."""
    process = subprocess.Popen([sys.executable, str(UP), str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert json.loads(process.stdout.readline())["event"] == "ready"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def pids(state_dir: Path) -> list[int]:
    fleet = read_fleet(state_dir)
    return [fleet.redis.pid, *(gateway.pid for gateway in fleet.gateways), *(worker.pid for worker in fleet.workers)]


def is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        # A zombie whose parent has died waits for init alone.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def all_gone(processes: list[int]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while any(is_alive(pid) for pid in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_everything_with_exit_code_0(up, tmp_path, number) -> None:
    below = pids(tmp_path)
    assert all(is_alive(pid) for pid in below)
    up.send_signal(number)
    assert up.wait(PATIENCE_S) == 0
    assert not any(is_alive(pid) for pid in below)


def test_a_stopped_worker_does_not_hold_the_end_up(up, tmp_path) -> None:
    below = pids(tmp_path)
    os.kill(below[-1], signal.SIGSTOP)
    up.send_signal(signal.SIGINT)
    assert up.wait(PATIENCE_S) == 0
    assert not any(is_alive(pid) for pid in below)


def test_killed_it_leaves_no_orphans_and_a_free_state_directory(up, tmp_path) -> None:
    below = pids(tmp_path)
    os.kill(below[-1], signal.SIGSTOP)
    up.kill()
    up.wait()
    assert all_gone(below)
    again = subprocess.Popen([sys.executable, str(UP), str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert json.loads(again.stdout.readline())["event"] == "ready"
    finally:
        again.send_signal(signal.SIGTERM)
        assert again.wait(PATIENCE_S) == 0
        again.stdout.close()


def test_a_line_for_each_change(up, tmp_path) -> None:
    victim = read_fleet(tmp_path).workers[0]
    os.kill(victim.pid, signal.SIGKILL)
    died, new = json.loads(up.stdout.readline()), json.loads(up.stdout.readline())
    assert (died["event"], died["id"]) == ("worker_died", victim.id)
    assert new.keys() == {"event", "id", "url", "pid"}
    assert new["event"] == "worker"


def test_only_what_was_given_is_passed_on() -> None:
    given = {"--slots": 3, "--dtype": None, "--mixed-chunk": True, "--other": False, "--lease-s": 1.5}
    assert flags(given) == ("--slots", "3", "--mixed-chunk", "--lease-s", "1.5")
