"""The whole operator: what makes it ready, what ends it, what its probes say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from berth_operator.errors import AdminUnavailable, ClusterRefused, ClusterUnavailable
from berth_operator.kube import app
from berth_operator.kube.app import Operator
from berth_operator.kube.watch import Flags
from kubekit.bodies import fleet, session
from kubekit.world import World

PATIENCE_S = 30.0


class Run:
    """An operator that runs, with a watch in place of Kopf's."""

    def __init__(self, operator: Operator) -> None:
        self.operator = operator
        self.stop = asyncio.Event()
        self.ready: list[bool] = []
        self.kinds: list[Any] = []
        self.watch_ended = False
        self.watch_fails: Exception | None = None
        self.task: asyncio.Task[None]

    async def watch(self, _: Any, __: Any, kinds: Any, flags: Flags) -> None:
        self.kinds += kinds
        flags.began.set()
        if self.watch_fails is not None:
            raise self.watch_fails
        await flags.over.wait()
        self.watch_ended = True

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                if condition():
                    return
                await asyncio.sleep(0)


@pytest.fixture
def starts(world: World, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    run = Run(world.operator)
    monkeypatch.setattr(app, "watch", run.watch)

    @asynccontextmanager
    async def start() -> AsyncIterator[Run]:
        run.task = asyncio.create_task(world.operator.run(lambda: run.ready.append(True), run.stop))
        try:
            yield run
        finally:
            run.stop.set()
            await asyncio.gather(run.task, return_exceptions=True)

    start.run = run  # type: ignore[attr-defined]
    return start


async def test_it_is_ready_when_all_has_been_seen(world: World, starts: Callable[[], Any]) -> None:
    assert world.operator.waits() == ["waiting for the cluster's objects", "waiting for the watch"]
    async with starts() as run:
        await run.until(lambda: run.ready)
        assert world.operator.waits() == []
        assert run.kinds == ["fleet", "session", "pod", "node"]


async def test_it_looks_at_what_is_there(world: World, starts: Callable[[], Any]) -> None:
    world.cluster.put("fleet", fleet(replicas=2))
    world.cluster.put("session", session())
    async with starts() as run:
        await run.until(lambda: world.condition("session", "alice"))
        await run.until(lambda: len(world.pods()) == 2)


async def test_it_ends_when_it_is_told_to(starts: Callable[[], Any]) -> None:
    async with starts() as run:
        await run.until(lambda: run.ready)
        run.stop.set()
        async with asyncio.timeout(PATIENCE_S):
            await run.task
        assert run.watch_ended


async def test_even_before_it_has_seen_anything(world: World, starts: Callable[[], Any]) -> None:
    world.cluster.breaks("list", times=10_000)
    async with starts() as run:
        await run.until(lambda: world.cluster.made("list"))
        run.stop.set()
        async with asyncio.timeout(PATIENCE_S):
            await run.task
        assert run.ready == []


async def test_a_right_that_it_lacks_ends_it(world: World, starts: Callable[[], Any]) -> None:
    world.cluster.breaks("list", ClusterRefused("inferencefleets is forbidden", status=403))
    async with starts() as run:
        with pytest.raises(ClusterRefused, match="is forbidden"):
            async with asyncio.timeout(PATIENCE_S):
                await run.task


async def test_so_does_a_watch_that_ends(starts: Callable[[], Any]) -> None:
    starts.run.watch_fails = ClusterUnavailable("the watch has ended: no such resource")  # type: ignore[attr-defined]
    async with starts() as run:
        with pytest.raises(ClusterUnavailable, match="the watch has ended"):
            async with asyncio.timeout(PATIENCE_S):
                await run.task


async def test_a_look_that_fails_does_not(
    world: World, starts: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: Any) -> None:
        raise AdminUnavailable("no gateway answers")

    monkeypatch.setattr(world.fleets, "look", fail)
    world.cluster.put("fleet", fleet())
    async with starts() as run:
        registry = world.operator.metrics.registry
        labels = {"kind": "fleet", "outcome": "failed"}
        await run.until(lambda: registry.get_sample_value("berth_operator_reconcile_total", labels))
        assert not run.task.done()


async def test_no_look_is_taken_before_the_gateways_were_asked(world: World) -> None:
    """Or a restart would tell the world for a moment that none answers."""
    world.cluster.put("fleet", fleet())
    await world.operator.upkeep.see_all()
    queue = asyncio.create_task(world.operator.queues.fleets.run())
    for _ in range(20):
        await asyncio.sleep(0)
    assert world.cluster.made("patch_status") == []
    await world.operator.upkeep.ask()
    for _ in range(20):
        await asyncio.sleep(0)
    assert world.cluster.made("patch_status") != []
    queue.cancel()
    await asyncio.gather(queue, return_exceptions=True)


class TestProbes:
    async def test_a_dead_watch_is_a_reason_to_start_anew(self, world: World) -> None:
        world.cluster.put("session", session())
        world.cluster.lose_watch()
        await world.operator.upkeep.see_all()
        world.clock.advance(world.settings.times.late_s)
        assert world.operator.troubles() == []
        world.clock.advance(1)
        assert world.operator.troubles() == ["the watch of sessions is 91 s behind"]
        world.cluster.put("session", session(suspend=True))
        world.cluster.tell(world.store)
        assert world.operator.troubles() == []

    async def test_one_that_owed_something_when_the_api_server_went_is_not(self, world: World) -> None:
        """However long that is away; once it is back the watch has as long as ever."""
        world.cluster.put("session", session())
        world.cluster.lose_watch()
        await world.operator.upkeep.see_all()
        for _ in range(20):
            world.clock.advance(world.settings.times.late_s / 5)
            world.operator.upkeep._failed(ClusterUnavailable("the API server does not answer"))
            assert world.operator.troubles() == []
        world.clock.advance(world.settings.times.late_s + 1)
        assert world.operator.troubles() == ["the watch of sessions is 91 s behind"]

    async def test_a_list_that_fails_is_not_but_it_is_told(self, world: World, starts: Callable[[], Any]) -> None:
        """To start anew would not help."""
        async with starts() as run:
            await run.until(lambda: run.ready)
            world.operator.upkeep._failed(ClusterUnavailable("it answered 503"))
            assert world.operator.troubles() == []
            assert world.operator.waits() == ["no complete list: it answered 503"]
