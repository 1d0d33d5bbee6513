"""What the demo finds, and when it is a failure. The whole demo is run with real parts by `make demo`."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from types import SimpleNamespace

import pytest

from berth_api.public import TurnMoved
from berth_cli import console, demo
from berth_cli.talk import Told
from berth_operator.local.state_dir import WorkerEntry

TURNS = len(demo.BEFORE) + 1 + len(demo.AFTER)
MOVED = TurnMoved("default-0-aa.boot", "default-1-bb.boot", 2, 57)


def turns(ids: list[int]) -> list[Told]:
    return [Told(ids=list(ids)) for _ in range(TURNS)]


@pytest.fixture
def outcome() -> demo.Outcome:
    """A good one: killed, moved after 250 ms, equal."""
    made = demo.Outcome(failed=turns([1, 2]), unfailed=turns([1, 2]), killed_at=10.0)
    made.long.moves, made.long.first_after_move = [MOVED], 10.25
    return made


def test_a_good_outcome(outcome) -> None:
    found = dict(demo.findings(outcome))
    assert outcome.equal
    assert found["failover: kill to the next token"] == "250 ms"
    assert found["tokens computed again"] == "57"
    assert found["moved"] == "default-0-aa -> default-1-bb"
    assert found["equal to the unfailed run"] == f"yes, {2 * TURNS} ids in {TURNS} turns"


def test_one_other_id_is_a_difference(outcome) -> None:
    outcome.unfailed[-1].ids[-1] = 3
    assert not outcome.equal
    assert dict(demo.findings(outcome))["equal to the unfailed run"].startswith("NO")


def test_no_token_after_the_kill_is_no_failover(outcome) -> None:
    outcome.long.first_after_move = None
    assert outcome.gap_s is None
    assert demo.findings(outcome) == [("killed mid-answer", "no")]


def test_kills_the_worker_of_the_turn_once(capsys) -> None:
    victim, other = subprocess.Popen(["sleep", "60"]), subprocess.Popen(["sleep", "60"])
    try:
        entries = [WorkerEntry("a.1", "http://a", other.pid), WorkerEntry("b.1", "http://b", victim.pid)]
        killer = demo.Killer(SimpleNamespace(workers=entries), console.stdout())
        told = Told(worker="b.1", ids=[0] * (demo.KILL_AFTER - 1))
        asyncio.run(killer(told))
        assert killer.killed_at is None
        told.ids.append(0)
        asyncio.run(killer(told))
        assert victim.wait(10) == -signal.SIGKILL
        first = killer.killed_at
        asyncio.run(killer(told))
        assert killer.killed_at == first
        assert "kill -9" in capsys.readouterr().out
    finally:
        for process in (victim, other):
            process.kill()
            process.wait()
