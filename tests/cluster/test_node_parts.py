"""The parts of the kit that decide, without a cluster."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from clusterkit.node.addresses import Addresses
from clusterkit.node.process import Deadline
from clusterkit.node.spec import expand, relocate
from clusterkit.node.status import Conditions, ContainerStatus, Verdict, phase, waiting
from clusterkit.waiting import until

RUNNING = {"running": {}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("$(A)-$(B)", "1-2"), ("$$(A)", "$(A)"), ("$(C)", "$(C)"), ("$A $", "$A $"), ("$$$(A)", "$1")],
)
def test_references_are_expanded_as_in_a_pod(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/var/run", "/x"),
        ("/var/run/a", "/x/a"),
        ("/var/run/word/token", "/y/token"),
        ("--file=/var/run/a,/var/run", "--file=/x/a,/x"),
        ("file:///var/run/a", "file:///x/a"),
        ("/var/running", "/var/running"),
        ("/var/run.d", "/var/run.d"),
        ("/my/var/run", "/my/var/run"),
        ("0.0.0.0:80", "127.1.2.3:80"),
        ("10.0.0.0.0", "10.0.0.0.0"),
    ],
)
def test_paths_and_addresses_are_those_of_this_machine(text: str, expected: str) -> None:
    assert relocate(text, {"/var/run": "/x", "/var/run/word": "/y"}, "127.1.2.3") == expected


def ended(code: int) -> dict[str, dict[str, int]]:
    return {"terminated": {"exitCode": code}}


@pytest.mark.parametrize(
    ("states", "policy", "leaving", "expected"),
    [
        ([waiting("ContainerCreating")], "Always", False, "Pending"),
        ([RUNNING, waiting("ErrImagePull")], "Always", False, "Pending"),
        ([RUNNING], "Always", False, "Running"),
        ([ended(0)], "Always", False, "Running"),
        ([ended(1)], "OnFailure", False, "Running"),
        ([ended(0)], "OnFailure", False, "Succeeded"),
        ([ended(1), RUNNING], "Never", False, "Running"),
        ([ended(1), ended(0)], "Never", False, "Failed"),
        ([ended(0)], "Always", True, "Succeeded"),
        ([ended(137)], "Always", True, "Failed"),
        ([RUNNING], "Always", True, "Running"),
    ],
)
def test_the_phase_follows_from_the_containers(states: list[object], policy: str, leaving: bool, expected: str) -> None:
    main = [ContainerStatus("a", "i", dict(state), id="" if "waiting" in state else "x") for state in states]

    assert phase([], main, policy=policy, leaving=leaving, verdict=None) == expected
    assert phase([], main, policy=policy, leaving=leaving, verdict=Verdict("Evicted", "")) == "Failed"


def test_a_condition_moves_its_time_when_it_flips_and_only_then() -> None:
    conditions = Conditions()

    def since(holds: bool, reason: str, now: str) -> str:
        return str(conditions.update({"Ready": (holds, reason, "")}, now)[0]["lastTransitionTime"])

    assert [since(False, "A", "1"), since(False, "B", "2"), since(True, "", "3"), since(True, "", "4")] == [*"1133"]


def test_addresses_are_nobody_elses_and_come_back_late() -> None:
    first, second = Addresses(), Addresses(count=1)
    one = first.take()
    first.give_back(one)
    assert first.take() != one
    assert first.host.rpartition(".")[0] != second.host.rpartition(".")[0]

    only = second.take()
    with pytest.raises(LookupError, match="all 1 addresses"):
        second.take()
    second.give_back(only)
    assert second.take() == only
    first.close()
    second.close()


async def test_a_deadline_may_come_nearer_while_it_is_waited_for() -> None:
    deadline, never = Deadline(3600), asyncio.Event()
    answer = asyncio.create_task(deadline.wait(never))
    await asyncio.sleep(0)
    deadline.shorten(0)

    assert await answer is False


async def test_what_is_waited_for_in_vain_is_named_with_the_last_answer() -> None:
    async def answer() -> bool:
        raise LookupError("no such thing")

    with pytest.raises(TimeoutError, match=r"not within 0 s: a thing; last seen: LookupError\('no such thing'\)"):
        await until(answer, "a thing", timeout_s=0)


SPAWNS = """
import time
from clusterkit.processes import spawn
print(spawn(["sleep", "600"]).pid, flush=True)
time.sleep(600)
"""


def dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


async def test_a_child_ends_with_whoever_started_it() -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", SPAWNS, stdout=asyncio.subprocess.PIPE, env=env)
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    assert not dead(child)

    parent.kill()
    await parent.wait()

    async def gone() -> bool:
        return dead(child)

    await until(gone, "the child is gone")
