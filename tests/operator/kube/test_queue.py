"""Keys that want a look, in real tasks and virtual time: the loop's clock is moved on by the test."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from berth_operator.kube.queue import FIRST_PAUSE_S, LONGEST_PAUSE_S, KeyedQueue


class Looks:
    """A queue whose looks are held until they are let go, and end as the test says."""

    def __init__(self, workers: int = 3) -> None:
        self.seen: list[str] = []
        self.busy: Counter[str] = Counter()
        self.most_at_once = 0
        self.failed: list[tuple[str, str]] = []
        self.held: dict[str, asyncio.Event] = {}
        self.ends: Callable[[str], float | None] = lambda _: None
        self.queue = KeyedQueue(self.look, workers=workers, failed=lambda key, why: self.failed.append((key, str(why))))

    async def look(self, key: str) -> float | None:
        self.seen.append(key)
        self.busy[key] += 1
        assert self.busy[key] == 1, "two looks at one key"
        self.most_at_once = max(self.most_at_once, self.busy.total())
        try:
            if key in self.held:
                await self.held[key].wait()
            return self.ends(key)
        finally:
            self.busy[key] -= 1

    def hold(self, key: str) -> asyncio.Event:
        return self.held.setdefault(key, asyncio.Event())


@pytest_asyncio.fixture
async def looks() -> AsyncIterator[Looks]:
    made = Looks()
    task = asyncio.create_task(made.queue.run())
    await settle()
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest_asyncio.fixture
async def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """The loop's clock stands still, as its timers see it, until the test lets seconds pass."""
    loop = asyncio.get_running_loop()
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now)

    def move(seconds: float) -> None:
        nonlocal now
        now += seconds

    return move


async def test_a_key_asked_for_often_is_looked_at_once(looks: Looks) -> None:
    for _ in range(5):
        looks.queue.add("a")
    assert len(looks.queue) == 1
    await settle()
    assert looks.seen == ["a"]
    assert len(looks.queue) == 0


async def test_what_is_asked_for_during_its_look_is_looked_at_once_more(looks: Looks) -> None:
    gate = looks.hold("a")
    looks.queue.add("a")
    await settle()
    looks.queue.add("a")
    looks.queue.add("a")
    await settle()
    assert looks.seen == ["a"]
    assert len(looks.queue) == 1
    gate.set()
    await settle()
    assert looks.seen == ["a", "a"]
    assert len(looks.queue) == 0


async def test_other_keys_go_on_meanwhile(looks: Looks) -> None:
    looks.hold("slow")
    for key in ("slow", "b", "c", "d"):
        looks.queue.add(key)
    await settle()
    assert looks.seen == ["slow", "b", "c", "d"]


async def test_no_more_looks_than_workers(looks: Looks) -> None:
    gates = [looks.hold(key) for key in "abcde"]
    for key in "abcde":
        looks.queue.add(key)
    await settle()
    assert looks.seen == ["a", "b", "c"]
    for gate in gates:
        gate.set()
    await settle()
    assert looks.seen == [*"abcde"]
    assert looks.most_at_once == 3


async def test_a_look_says_when_to_look_again(looks: Looks, pass_time: Callable[[float], None]) -> None:
    pauses = iter([30.0])
    looks.ends = lambda _: next(pauses, None)
    looks.queue.add("a")
    await settle()
    pass_time(29.0)
    await settle()
    assert looks.seen == ["a"]
    pass_time(1.1)
    await settle()
    assert looks.seen == ["a", "a"]


async def test_the_earliest_of_two_promises_holds(looks: Looks, pass_time: Callable[[float], None]) -> None:
    looks.queue.add_after("a", 10.0)
    looks.queue.add_after("a", 30.0)
    looks.queue.add_after("b", 30.0)
    looks.queue.add_after("b", 10.0)
    pass_time(11.0)
    await settle()
    assert sorted(looks.seen) == ["a", "b"]
    pass_time(30.0)
    await settle()
    assert sorted(looks.seen) == ["a", "b"]


async def test_a_look_now_makes_a_later_one_needless(looks: Looks, pass_time: Callable[[float], None]) -> None:
    looks.queue.add_after("a", 10.0)
    looks.queue.add("a")
    await settle()
    pass_time(11.0)
    await settle()
    assert looks.seen == ["a"]


async def test_a_failing_look_is_repeated_with_growing_pauses(looks: Looks, pass_time: Callable[[float], None]) -> None:
    def fail(key: str) -> None:
        if key == "bad":
            raise ValueError("no")

    looks.ends = fail
    looks.queue.add("bad")
    pause = FIRST_PAUSE_S
    for times in range(1, 12):
        await settle()
        assert looks.seen.count("bad") == times
        pass_time(pause * 0.9)
        await settle()
        assert looks.seen.count("bad") == times
        pass_time(pause * 0.2)
        pause = min(LONGEST_PAUSE_S, pause * 2)
    assert looks.failed == [("bad", "no")] * 11
    looks.queue.add("good")
    await settle()
    assert "good" in looks.seen


async def test_a_success_makes_the_next_pause_short_again(looks: Looks, pass_time: Callable[[float], None]) -> None:
    outcomes = iter([False, False, False, True, False])

    def look(_: str) -> None:
        if not next(outcomes, True):
            raise ValueError("no")

    looks.ends = look
    looks.queue.add("a")
    for _ in range(4):
        await settle()
        pass_time(10.0)
    await settle()
    looks.queue.add("a")
    await settle()
    assert len(looks.failed) == 4
    pass_time(FIRST_PAUSE_S * 1.1)
    await settle()
    assert len(looks.seen) == 6
    assert looks.queue._failures == {}


async def test_its_end_cancels_what_was_promised(pass_time: Callable[[float], None]) -> None:
    looks = Looks()
    task = asyncio.create_task(looks.queue.run())
    looks.hold("busy")
    looks.queue.add("busy")
    looks.queue.add_after("later", 5.0)
    await settle()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    pass_time(6.0)
    await settle()
    assert looks.seen == ["busy"]
    assert looks.busy.total() == 0
