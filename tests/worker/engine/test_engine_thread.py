"""The engine's thread: answers, events, and what becomes of callers when it fails."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from berth_api.errors import BerthError, NoSuchSession
from berth_api.wire import Aborted, Finished, Sampling
from berth_worker.engine.engine import FAILED_STEPS_TOLERATED, Engine
from berth_worker.engine.requests import Generate
from workerkit.driver import Driver
from workerkit.fakes import continuation
from workerkit.waiting import until


class Caller:
    """A sink on the event loop."""

    def __init__(self) -> None:
        self.events = []
        self.ended = asyncio.Event()

    def put(self, event) -> None:
        self.events.append(event)
        if isinstance(event, Finished | Aborted):
            self.ended.set()


def request(rid: str, new: int = 3) -> Generate:
    return Generate(rid, np.array([3, 4], np.int32), Sampling(max_new_tokens=new), seed=7)


@pytest.fixture
async def driver():
    return Driver()


@pytest.fixture
async def engine(driver):
    engine = Engine(driver.core, tick_s=0.01)
    engine.start()
    yield engine
    await engine.stop()


async def test_a_request_is_answered_and_the_state_is_as_new_as_the_answer(engine):
    caller = Caller()
    await engine.ask(lambda core: core.generate(request("a"), caller))
    async with asyncio.timeout(5):
        await caller.ended.wait()
    assert [token for event in caller.events[1:-1] for token in event.ids] == continuation([3, 4], 3)
    assert engine.state.turns == {"length": 1}
    assert engine.state.memory.uncached == 0


async def test_a_refusal_is_raised_at_the_caller(engine):
    with pytest.raises(NoSuchSession):
        await engine.ask(lambda core: core.close("nobody"))


async def test_the_event_loop_goes_on_while_a_step_runs(driver, engine):
    gate, inside = threading.Event(), threading.Event()
    step = driver.runner.step

    def slow(batch):
        inside.set()
        assert gate.wait(5)
        return step(batch)

    driver.runner.step = slow
    caller = Caller()
    await engine.ask(lambda core: core.generate(request("a"), caller))
    await asyncio.to_thread(inside.wait, 5)
    assert engine.trouble(step_limit_s=60) is None
    assert "overdue" in engine.trouble(step_limit_s=0)
    gate.set()
    async with asyncio.timeout(5):
        await caller.ended.wait()
        await engine.quiet.wait()
    await until(lambda: engine.trouble(step_limit_s=0) is None)


async def test_cancel_aborts_between_steps(driver, engine):
    caller, gate = Caller(), threading.Event()
    step = driver.runner.step
    driver.runner.step = lambda batch: (gate.wait(5), step(batch))[1]
    await engine.ask(lambda core: core.generate(request("a", new=100), caller))
    engine.cancel(caller, "disconnected", "gone")
    gate.set()
    async with asyncio.timeout(5):
        await caller.ended.wait()
    assert caller.events[-1].reason == "disconnected"


async def test_steps_that_keep_failing_make_the_engine_unhealthy(driver, engine):
    driver.runner.fail = RuntimeError("lost the device")
    for count in range(FAILED_STEPS_TOLERATED):
        assert engine.trouble(60) is None
        caller = Caller()
        await engine.ask(lambda core, caller=caller, count=count: core.generate(request(str(count)), caller))
        async with asyncio.timeout(5):
            await caller.ended.wait()
        assert caller.events[-1].reason == "internal_error"
    assert "steps failed" in engine.trouble(60)
    driver.runner.fail = None
    caller = Caller()
    await engine.ask(lambda core: core.generate(request("good"), caller))
    async with asyncio.timeout(5):
        await caller.ended.wait()
    assert engine.trouble(60) is None


async def test_wrong_books_fail_every_request_and_nobody_hangs(driver, engine):
    caller = Caller()
    driver.runner.step = lambda _: [driver.core.cache.pool.take(1), []][1]
    await engine.ask(lambda core: core.generate(request("a"), caller))
    async with asyncio.timeout(5):
        await caller.ended.wait()
    assert caller.events[-1].reason == "internal_error"
    assert "failed" in engine.trouble(60)
    with pytest.raises(BerthError, match="failed"):
        await engine.ask(lambda core: core.generate(request("late"), Caller()))


async def test_sessions_are_reaped_while_the_engine_is_idle(driver, engine):
    await engine.ask(lambda core: core.open("s", 100, 1.0))
    driver.now = 5.0
    await until(lambda: engine.state.native_sessions == 0)
