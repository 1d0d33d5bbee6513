"""A local fleet with real processes and a real Redis; workers and gateways are small scripts."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from berth_operator.errors import AdminRefused, ChildFailed, StateDirInUse
from berth_operator.local.events import Event, FleetReady, GatewayUp, Problem, RedisUp, WorkerDied, WorkerUp
from berth_operator.local.fleet import LocalFleet, running
from berth_operator.local.settings import LocalSettings
from berth_operator.local.state_dir import read_fleet
from berth_operator.policy import Policy

Make = Callable[..., LocalSettings]
PATIENCE_S = 20.0


class Diary:
    """Keeps what a fleet reports, and waits for more."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._more = asyncio.Event()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self._more.set()

    async def next(self, kind: type[Event], after: int = 0) -> Event:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for event in self.events[after:]:
                    if isinstance(event, kind):
                        return event
                self._more.clear()
                await self._more.wait()


async def eventually(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 - another process will not set an event
            await asyncio.sleep(0.02)


def is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


async def registered(fleet: LocalFleet) -> set[str]:
    return {worker.id for worker in await fleet.admin.workers()}


async def test_comes_up_with_all_its_parts(settings: Make) -> None:
    diary = Diary()
    async with running(settings(workers=2, gateways=2), diary) as fleet:
        word = diary.events[-1]
        assert isinstance(word, FleetReady)
        assert word.gateway == word.gateways[0]
        assert len(set(word.gateways)) == 2
        assert not word.gateway.endswith("/")
        assert {worker.id for worker in word.workers} == await registered(fleet)
        assert all(is_alive(worker.pid) for worker in word.workers)


async def test_ends_every_process(settings: Make) -> None:
    async with running(settings(), Diary()) as fleet:
        file = read_fleet(Path(settings().state_dir))
        pids = [worker.pid for worker in fleet.workers] + [gateway.pid for gateway in file.gateways] + [file.redis.pid]
        assert all(is_alive(pid) for pid in pids)
    assert not any(is_alive(pid) for pid in pids)


async def test_a_killed_worker_is_replaced_and_dropped(settings: Make) -> None:
    diary = Diary()
    async with running(settings(), diary) as fleet:
        victim, other = fleet.workers
        seen = len(diary.events)
        os.kill(victim.pid, signal.SIGKILL)
        died = await diary.next(WorkerDied, seen)
        assert died.id == victim.id
        assert "SIGKILL" in died.reason
        replacement = await diary.next(WorkerUp, seen)
        assert replacement.id != victim.id
        async with asyncio.timeout(PATIENCE_S):
            while await registered(fleet) != {other.id, replacement.id}:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def test_a_gateway_comes_back_where_it_was(settings: Make) -> None:
    diary = Diary()
    async with running(settings(), diary):
        before = await diary.next(GatewayUp)
        seen = len(diary.events)
        os.kill(before.pid, signal.SIGKILL)
        after = await diary.next(GatewayUp, seen)
        assert (after.url, after.admin) == (before.url, before.admin)
        assert after.pid != before.pid


async def test_redis_comes_back_where_it_was(settings: Make) -> None:
    diary = Diary()
    async with running(settings(), diary):
        before = await diary.next(RedisUp)
        seen = len(diary.events)
        os.kill(before.pid, signal.SIGKILL)
        after = await diary.next(RedisUp, seen)
        assert after.url == before.url


async def test_workers_are_replaced_while_no_gateway_answers(settings: Make) -> None:
    diary = Diary()
    async with running(settings(), diary) as fleet:
        gateway = await diary.next(GatewayUp)
        os.kill(gateway.pid, signal.SIGSTOP)
        victim = fleet.workers[0]
        os.kill(victim.pid, signal.SIGKILL)
        await eventually(lambda: victim.id not in {w.id for w in fleet.workers} and len(fleet.workers) == 2)
        os.kill(gateway.pid, signal.SIGCONT)


async def test_a_worker_that_hangs_is_killed_and_replaced(settings: Make) -> None:
    times = replace(settings().times, health_every_s=0.05, health_timeout_s=0.3)
    made = settings(times=times, policy=Policy(liveness_s=0.5))
    diary = Diary()
    async with running(made, diary) as fleet:
        victim = fleet.workers[0]
        os.kill(victim.pid, signal.SIGSTOP)
        problem = await diary.next(Problem)
        assert "does not answer" in problem.message
        await eventually(lambda: not is_alive(victim.pid))
        await eventually(lambda: victim.id not in {w.id for w in fleet.workers} and len(fleet.workers) == 2)


async def test_the_fleets_file_follows(settings: Make) -> None:
    async with running(settings(), Diary()) as fleet:
        path = settings().state_dir
        assert stat.S_IMODE((path / "fleet.json").stat().st_mode) == 0o600
        assert stat.S_IMODE((path / "admin.token").stat().st_mode) == 0o600
        os.kill(fleet.workers[0].pid, signal.SIGKILL)
        old = fleet.workers[0].id
        await eventually(lambda: old not in {w.id for w in fleet.workers} and len(fleet.workers) == 2)
        await eventually(lambda: read_fleet(path).workers == fleet.workers)
    assert not (path / "fleet.json").exists()


async def test_a_model_that_cannot_be_loaded_ends_the_start_with_the_workers_words(settings: Make) -> None:
    with pytest.raises(ChildFailed, match="exited with 2: berth_worker: no model at 'missing'"):
        async with running(settings(model="missing"), Diary()):
            pytest.fail("it came up")


async def test_workers_that_are_killed_at_every_start_end_it_too(settings: Make) -> None:
    with pytest.raises(ChildFailed, match="killed by SIGKILL"):
        async with running(settings(model="dies"), Diary()):
            pytest.fail("it came up")


async def test_a_taken_gateway_port_is_named(settings: Make) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ChildFailed, match=f"cannot listen on port {port}"):
            async with running(settings(gateway_port=port), Diary()):
                pytest.fail("it came up")


async def test_workers_that_the_gateways_refuse_end_the_start(settings: Make) -> None:
    """As those of another model than the sessions in the state directory were opened with."""
    refusing = settings(gateway_options=("--refuse", "another model"))
    with pytest.raises(AdminRefused, match=r"refuse worker default-.*: another model"):
        async with asyncio.timeout(PATIENCE_S), running(refusing, Diary()):
            pass


async def test_a_state_directory_in_use_is_refused(settings: Make) -> None:
    async with running(settings(), Diary()):
        with pytest.raises(StateDirInUse, match=str(os.getpid())):
            async with running(settings(), Diary()):
                pytest.fail("it came up")


async def test_two_fleets_do_not_collide(settings: Make, tmp_path: Path) -> None:
    async with running(settings(), Diary()) as one, running(settings(state_dir=tmp_path / "b"), Diary()) as two:
        assert not await registered(one) & await registered(two)
        assert not set(one.gateways) & set(two.gateways)


async def test_what_redis_knew_is_known_again(settings: Make) -> None:
    diary = Diary()
    async with running(settings(), diary) as fleet:
        await _redis(fleet, b"SET kept yes")
    async with running(settings(), Diary()) as fleet:
        assert await _redis(fleet, b"GET kept") == b"$3"


async def test_workers_of_an_earlier_run_are_dropped(settings: Make) -> None:
    async with running(settings(), Diary()) as fleet:
        before = await registered(fleet)
    async with running(settings(), Diary()) as fleet:
        assert await registered(fleet) == {worker.id for worker in fleet.workers}
        assert not before & await registered(fleet)


async def test_options_reach_the_workers(settings: Make) -> None:
    made = settings(worker_options=("--slots", "3"))
    async with running(made, Diary()):
        log = (made.state_dir / "logs" / "worker-default-0.log").read_text()
        options = json.loads(log.splitlines()[0])["options"]
        assert options[options.index("--slots") + 1] == "3"
        assert "--threads" in options


async def _redis(fleet: LocalFleet, command: bytes) -> bytes:
    port = int(fleet.redis.rpartition(":")[2].split("/")[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(command + b"\r\n")
    answer = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return answer.strip()
