"""Drives a `Core` by hand: requests in, steps one at a time, events collected."""

from __future__ import annotations

import numpy as np

from berth_api import heads
from berth_api.wire import Aborted, Finished, Sampling, Started, Tokens, TurnRequest
from berth_worker.engine.core import Core
from berth_worker.engine.intake import Model
from berth_worker.engine.requests import Event, Generate
from berth_worker.engine.scheduler import Limits
from workerkit.fakes import BOS, EOS, POISON, VOCAB, FakeRunner, FakeTokenizer

FINGERPRINT = "fake"


def pack(ids: list[int]) -> bytes:
    """Ids as they travel."""
    return np.array(ids, "<i4").tobytes()


class Heard:
    """One request's events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def put(self, event: Event) -> None:
        self.events.append(event)

    @property
    def ids(self) -> list[int]:
        return [token for event in self.events if isinstance(event, Tokens) for token in event.ids]

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, Tokens | Finished))

    @property
    def started(self) -> Started:
        [started] = [event for event in self.events if isinstance(event, Started)]
        return started

    @property
    def finished(self) -> Finished:
        assert isinstance(self.events[-1], Finished), self.events
        return self.events[-1]

    @property
    def aborted(self) -> Aborted:
        assert isinstance(self.events[-1], Aborted), self.events
        return self.events[-1]

    @property
    def ended(self) -> bool:
        return bool(self.events) and isinstance(self.events[-1], Finished | Aborted)


class Driver:
    """A core with a fake runner, and a clock that moves when told."""

    def __init__(
        self,
        *,
        pages: int = 64,
        page_size: int = 4,
        slots: int = 4,
        context: int = 200,
        chunk: int = 16,
        running: int | None = None,
        queue: int = 64,
        check: str = "busy",
        queue_s: float | None = None,
        mixed: bool = False,
        retract_every: int = 0,
        headroom: int = 4,
    ) -> None:
        self.runner = FakeRunner(pages, page_size)
        self.now = 0.0
        context = min(context, pages * page_size)
        self.core = Core(
            self.runner,
            Model(FakeTokenizer(), FINGERPRINT, VOCAB, context, frozenset({EOS}), BOS),
            Limits(chunk, min(running or slots, slots), queue, queue_s, mixed, retract_every, headroom),
            slots=slots,
            check=check,
            clock=lambda: self.now,
        )
        self._names = 0
        self._poison_freed_pages()

    def _poison_freed_pages(self) -> None:
        pool, give = self.core.cache.pool, self.core.cache.pool.give

        def poison(pages: np.ndarray) -> None:
            give(pages)
            self.runner.memory[pages] = POISON

        pool.give = poison

    def generate(self, ids: list[int], session: str | None = None, new: int = 4, **options) -> Heard:
        """Send a native request."""
        self._names += 1
        heard = Heard()
        sampling = Sampling(max_new_tokens=new, **options.pop("sampling", {}))
        options = {"rid": f"r{self._names}", "seed": 7} | options
        self.core.generate(
            Generate(input_ids=np.array(ids, np.int32), sampling=sampling, session_id=session, **options), heard
        )
        return heard

    def turn(
        self, uid: str, ids: list[int], parent: str = "", *, epoch: int = 1, attempt: int = 1, new: int = 4, **options
    ) -> Heard:
        """Send a gateway's turn."""
        heard = Heard()
        sampling = Sampling(max_new_tokens=new, **options.pop("sampling", {}))
        options = {"turn": f"t{epoch}", "seed": 7, "fingerprint": FINGERPRINT} | options
        self.core.turn(
            TurnRequest(
                session=f"default/{uid}",
                uid=uid,
                epoch=epoch,
                attempt=attempt,
                parent=parent,
                input_ids=pack(ids),
                sampling=sampling,
                **options,
            ),
            heard,
        )
        return heard

    def steps(self, count: int = 1) -> None:
        """Take steps, delivering events after each."""
        for _ in range(count):
            self.core.step()
            self.deliver()
            if self.runner.wrong is not None:
                raise self.runner.wrong

    def deliver(self) -> None:
        """Hand out what the core has to say."""
        for sink, event in self.core.outbox:
            sink.put(event)
        self.core.outbox.clear()

    def settle(self, limit: int = 2000) -> None:
        """Step until nothing is in flight."""
        for _ in range(limit):
            if self.core.idle:
                self.core.verify()
                self.deliver()
                return
            self.steps()
        raise AssertionError(f"not idle after {limit} steps")

    def say(self, session: str, ids: list[int], new: int = 4, **options) -> Heard:
        """Take a whole turn of a native session."""
        heard = self.generate(ids, session, new, **options)
        self.settle()
        return heard

    def take_turn(self, uid: str, ids: list[int], parent: str = "", **options) -> Heard:
        """Take a whole turn of a gateway session."""
        heard = self.turn(uid, ids, parent, **options)
        self.settle()
        return heard


def head_of(*turns: list[int]) -> str:
    """The head of a history of `turns`."""
    head = heads.ROOT
    for ids in turns:
        head = heads.advance(head, pack(ids))
    return head
