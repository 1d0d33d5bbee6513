"""Any order of turns, aborts, closes, evictions, rollbacks and rebuilds, against a model of a few lines.

The model is what a ledger and a client would know: committed tokens and heads. The small pool makes every session fight
for its KV, the fake runner notices any wrong page, and the books are checked after every step.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from berth_api.errors import Conflict, HistoryRequired, InvalidRequest
from berth_api.wire import Aborted, ReleaseRequest, StopRequest
from workerkit.driver import Driver, Heard, head_of, pack
from workerkit.fakes import continuation

NATIVE, GATEWAY = ("n1", "n2", "n3"), ("g1", "g2", "g3")
CONTEXT = 72
inputs = st.lists(st.integers(3, 5) | st.integers(3, 250), min_size=1, max_size=14)
natives, uids = st.sampled_from(NATIVE), st.sampled_from(GATEWAY)
lengths = st.integers(0, 12)
sendings = st.sampled_from(["nothing", "all", "rest"])


class Ledger:
    """What a gateway knows of one session."""

    def __init__(self, uid: str) -> None:
        self.uid = uid
        self.turns: list[list[int]] = []
        self.epoch = 0
        self.running: tuple[Heard, list[int], list[int], list[int]] | None = None
        self.pending: tuple[str, list[int]] | None = None

    @property
    def ids(self) -> list[int]:
        return [token for turn in self.turns for token in turn]

    @property
    def head(self) -> str:
        return head_of(*self.turns)


class SessionMachine(RuleBasedStateMachine):
    @initialize(
        page_size=st.sampled_from([1, 3, 8]),
        chunk=st.sampled_from([2, 7, 64]),
        slots=st.integers(1, 4),
        mixed=st.booleans(),
        retract_every=st.sampled_from([0, 0, 1, 3]),
        headroom=st.sampled_from([0, 4, CONTEXT]),
    )
    def start(self, page_size, **options):
        pages = 96 // page_size
        self.driver = Driver(pages=pages, page_size=page_size, context=CONTEXT, queue=1000, **options)
        self.forks = 0
        self.history: dict[str, list[int]] = {}
        self.in_flight: dict[str, tuple[Heard, list[int], int]] = {}
        self.closing: set[str] = set()
        self.ledgers = {name: Ledger(name) for name in GATEWAY}
        self.plain: list[tuple[Heard, list[int], int]] = []

    # Native sessions

    @rule(turns=st.lists(st.tuples(natives, inputs, lengths), min_size=1, max_size=5))
    def say(self, turns):
        for name, ids, new in turns:
            if name not in self.history:
                self.driver.core.open(name, 1000, None)
                self.history[name] = []
            if name in self.in_flight:
                with pytest.raises(InvalidRequest):
                    self.driver.generate(ids, name, new)
            elif len(self.history[name]) + len(ids) + new > CONTEXT:
                self.close(name)
            else:
                self.in_flight[name] = (self.driver.generate(ids, name, new), ids, new)

    @rule(name=natives)
    def close(self, name):
        if name not in self.history:
            return
        self.driver.core.close(name)
        if name in self.in_flight:
            self.closing.add(name)
        else:
            del self.history[name]

    # Gateway sessions

    @rule(
        turns=st.lists(st.tuples(uids, inputs, lengths, sendings, st.integers(0, 3)), min_size=1, max_size=5),
        steps=st.sampled_from([0, 1, 20]),
    )
    def talk(self, turns, steps):
        for _ in range(steps):
            self.steps_once()
        for name, ids, new, send, resume in turns:
            self.turn(self.ledgers[name], ids, new, send, resume)

    def turn(self, ledger, ids, new, send, resume):
        uid = ledger.uid
        if ledger.running is not None and resume:
            return  # mostly turns are left to run, now and then a newer attempt supersedes
        if ledger.pending is not None and send != "all":
            ledger.turns.append(ledger.pending[1])
        ledger.pending = None
        if len(ledger.ids) + len(ids) + new > CONTEXT:
            ledger.turns = ledger.turns[: len(ledger.turns) // 2]
            return
        ledger.epoch += 1
        whole = continuation(ledger.ids + ids, new)
        options = {"parent": ledger.head, "epoch": ledger.epoch, "new": new, "resume_ids": pack(whole[:resume])}
        if send == "all":
            options["history"] = [pack(turn) for turn in ledger.turns]
        try:
            heard = self.driver.turn(uid, ids, **options)
        except HistoryRequired as refused:
            at = len(ledger.turns) if send == "rest" else 0
            while at and head_of(*ledger.turns[:at]) not in refused.members["have"]:
                at -= 1
            missing = [pack(turn) for turn in ledger.turns[at:]]
            options |= {"history": missing, "history_base": head_of(*ledger.turns[:at])}
            heard = self.driver.turn(uid, ids, **options)
        self.driver.deliver()
        if ledger.running is not None:
            assert ledger.running[0].aborted.reason == "superseded"
        ledger.running = (heard, ledger.ids, ids, whole[:resume])
        self.collect()

    @rule(lost=st.sampled_from([None, None, *GATEWAY]))
    def commit_all_but(self, lost):
        for uid, ledger in self.ledgers.items():
            if uid != lost and ledger.pending is not None:
                head, turn = ledger.pending
                ledger.turns.append(turn)
                ledger.pending = None
                assert ledger.head == head

    @rule(source=uids, name=uids, back=st.integers(0, 2))
    def fork(self, source, name, back):
        """The session `name` is forgotten; a new one of that name begins with what is committed of `source`."""
        turns = self.ledgers[source].turns
        if self.ledgers[name].running is None:
            self.forks += 1
            self.ledgers[name] = Ledger(f"{name}.{self.forks}")
            self.ledgers[name].turns = turns[: max(0, len(turns) - back)]

    @rule(uid=uids)
    def lose_the_last_commit(self, uid):
        ledger = self.ledgers[uid]
        if ledger.turns and ledger.running is None:
            ledger.turns.pop()
            ledger.pending = None

    @rule(uid=uids)
    def release(self, uid):
        ledger = self.ledgers[uid]
        self.driver.core.release(ReleaseRequest(ledger.uid, ledger.epoch))

    # Everybody

    @rule(whom=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["abort", "gone", "stop"])), max_size=3))
    def interrupt(self, whom):
        self.steps_once()
        for number, how in whom:
            ledger, native = self.ledgers[GATEWAY[number]], self.in_flight.get(NATIVE[number])
            if how == "stop":
                order = StopRequest(ledger.uid, f"t{ledger.epoch}", ledger.epoch, 1)
                assert self.driver.core.stop(order) == (ledger.running is not None)
            elif how == "gone" and ledger.running is not None:
                self.driver.core.cancel(ledger.running[0], "disconnected", "gone")
            elif how == "abort" and native is not None:
                self.driver.core.cancel(native[0], "abort", "told to")
            self.driver.deliver()
            self.collect()

    @rule(ids=inputs, new=lengths)
    def plain_request(self, ids, new):
        self.plain.append((self.driver.generate(ids, new=new), ids, new))

    @rule(count=st.sampled_from([1, 3, 10, 40, 120]))
    def steps(self, count):
        for _ in range(count):
            self.steps_once()

    def steps_once(self):
        self.driver.steps()
        self.collect()

    @rule()
    def flush(self):
        if not self.driver.core.idle:
            with pytest.raises(Conflict):
                self.driver.core.flush()
            return
        self.driver.core.flush()
        memory = self.driver.core.state().memory
        assert (memory.available, memory.rows_free) == (memory.total, memory.rows_total)

    def collect(self) -> None:
        for name, (heard, ids, new) in list(self.in_flight.items()):
            if heard.ended:
                del self.in_flight[name]
                self._native_ended(name, heard, ids, new)
        for ledger in self.ledgers.values():
            if ledger.running is not None and ledger.running[0].ended:
                self._turn_ended(ledger, *ledger.running)
                ledger.running = None
        for heard, ids, new in self.plain:
            if heard.ended:
                assert heard.ids == continuation(ids, new)
        self.plain = [item for item in self.plain if not item[0].ended]

    def _native_ended(self, name: str, heard: Heard, ids: list[int], new: int) -> None:
        prompt = self.history[name] + ids
        if not isinstance(heard.events[-1], Aborted):
            assert heard.started.prompt_tokens == len(prompt)
            assert heard.started.cached_tokens < len(prompt)
            assert heard.ids == continuation(prompt, new)
            self.history[name] = prompt + heard.ids
        if name in self.closing:
            self.closing.discard(name)
            del self.history[name]

    def _turn_ended(self, ledger: Ledger, heard: Heard, before: list[int], ids: list[int], resumed: list[int]) -> None:
        if isinstance(heard.events[-1], Aborted):
            return
        output = resumed + heard.ids
        assert output == continuation(before + ids, len(output))
        assert heard.finished.completion_tokens == len(output)
        assert heard.started.cached_tokens < len(before + ids) + bool(resumed)
        if ledger.ids == before:
            ledger.pending = (heard.finished.head, ids + output)

    @invariant()
    def books_balance(self):
        if hasattr(self, "driver"):
            self.collect()
            self.driver.core.verify()

    def teardown(self):
        if hasattr(self, "driver"):
            for _ in range(3000):
                if self.driver.core.idle:
                    break
                self.driver.steps()
            self.collect()
            assert self.driver.core.idle
            assert not self.plain
            assert not self.in_flight
            self.driver.core.flush()
            memory = self.driver.core.state().memory
            assert (memory.available, memory.rows_free) == (memory.total, memory.rows_total)


SessionMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestSessionMachine = SessionMachine.TestCase
