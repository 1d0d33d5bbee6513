"""What runs behind everything else goes on after whatever one of its rounds meets."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace

from berth_gateway.app import end
from berth_gateway.keeper import Keeper
from berth_gateway.metrics import Metrics
from berth_gateway.reaper import reap_for_ever
from berth_gateway.settings import ReaperSettings


async def until(reached: asyncio.Event, work) -> None:
    """Run `work` until something is reached; fail where it ends before."""
    task = asyncio.create_task(work)
    waiting = asyncio.create_task(reached.wait())
    await asyncio.wait({task, waiting}, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    ended = task.done()
    for one in (task, waiting):
        one.cancel()
    await asyncio.gather(task, waiting, return_exceptions=True)
    assert reached.is_set()
    assert not ended


async def test_a_loop_that_loses_a_cancellation_ends_all_the_same():
    lost = []

    async def loop():
        while len(lost) < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost.append(1)
        await asyncio.Event().wait()

    task = asyncio.create_task(loop())
    await asyncio.sleep(0)
    await asyncio.wait_for(end(task, again_s=0.001), 10)
    assert task.cancelled()
    assert len(lost) == 2


async def test_a_pass_of_the_reaper_that_crashes_is_not_the_last(fast):
    passes, third = [], asyncio.Event()

    async def namespaces():
        passes.append(1)
        if len(passes) == 3:
            third.set()
        raise RuntimeError("odd data")

    backends = SimpleNamespace(
        settings=replace(fast, reaper=ReaperSettings(every_s=0.001)),
        ledger=SimpleNamespace(namespaces=namespaces),
        metrics=Metrics(),
    )
    await until(third, reap_for_ever(backends))


async def test_an_order_that_crashes_is_not_the_last(fast):
    heard, second = [], asyncio.Event()

    async def orders():
        heard.append(1)
        if len(heard) == 2:
            second.set()
        yield None  # no order at all

    settings = replace(fast, turn=replace(fast.turn, retry_pause_s=0.001))
    backends = SimpleNamespace(settings=settings, ledger=SimpleNamespace(orders=orders))
    await until(second, Keeper(backends, None).follow_orders())
