"""Any order of appends, branches, replacements, aborts and closes, against a tree of a few lines.

The model keeps whole prompts, as a client without sessions would send them. The small pool makes requests fight for
their KV, the fake runner notices any wrong page, and the books are checked after every step.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from berth_api.errors import InvalidRequest, TooLong
from berth_api.wire import Aborted
from berth_worker.sessions.branches import Branch
from workerkit.driver import Driver, Heard
from workerkit.fakes import continuation

CONTEXT, CAPACITY = 72, 48
SESSIONS = ("s", "t")
sessions, picks = st.sampled_from(SESSIONS), st.integers(0, 99)
seldom = st.sampled_from([False, False, False, True])
offsets = st.sampled_from([0, 0, 0, 1, 7, -1, -6, 40])
inputs = st.lists(st.integers(3, 5), min_size=1, max_size=6)


class Asked(NamedTuple):
    """A request: in flight as long as its output is not in the model."""

    heard: Heard
    after: str | None
    prompt: list[int]
    new: int


class BranchMachine(RuleBasedStateMachine):
    @initialize(
        page_size=st.sampled_from([1, 3, 8]),
        chunk=st.sampled_from([2, 7, 64]),
        slots=st.integers(1, 4),
        mixed=st.booleans(),
        retract_every=st.sampled_from([0, 0, 1, 3]),
        headroom=st.sampled_from([0, 4, CONTEXT]),
    )
    def start(self, page_size, **options):
        self.driver = Driver(pages=96 // page_size, page_size=page_size, context=CONTEXT, queue=1000, **options)
        self.done: dict[str, dict[str, Asked]] = {name: {} for name in SESSIONS}
        self.running: dict[str, dict[str, Asked]] = {name: {} for name in SESSIONS}
        self.closing: set[str] = set()
        self.names = 0
        for name in SESSIONS:
            self.driver.core.open(name, CAPACITY, None, streaming=False)

    @rule(session=sessions, ids=inputs, new=st.integers(0, 6), replacing=seldom)
    def begin_anew(self, session, ids, new, replacing):
        self.ask(session, self._new_rid(), Branch(replace=replacing), ids, new)

    @rule(
        session=sessions,
        pick=picks,
        steps=st.sampled_from([0, 3, 30]),
        asked=st.lists(st.tuples(inputs, st.integers(0, 6)), min_size=1, max_size=3),
        branch=st.builds(Branch, offset=offsets, replace=seldom, drop_previous_output=seldom),
    )
    def go_on(self, session, pick, steps, asked, branch):
        """After some steps, continue some finished request, once or several times at once."""
        self.steps(steps)
        done = list(self.done[session])
        parent = done[pick % len(done)] if done else None
        for ids, new in asked:
            self.ask(session, self._new_rid(), replace(branch, rid=parent), ids, new)

    @rule(session=sessions, pick=picks, other=picks, replacing=seldom, ids=inputs)
    def take_any_names(self, session, pick, other, replacing, ids):
        """Name requests that were dropped, are in flight, or belong to the other session."""
        known = [f"r{number}" for number in range(self.names + 1)]
        rid, after = known[pick % len(known)], known[other % len(known)]
        if not any(rid in self.running[name] for name in SESSIONS):
            self.ask(session, rid, Branch(after, replace=replacing), ids, 3)

    def _new_rid(self) -> str:
        self.names += 1
        return f"r{self.names}"

    def ask(self, session: str, rid: str, branch: Branch, ids: list[int], new: int) -> None:
        done, running = self.done[session], self.running[session]
        dropped = self._behind(session, branch.rid) if branch.replace else set()
        history = self._history(done, branch)
        taken = rid in running or (rid in done and rid not in dropped)
        prompt = (history or []) + ids
        if history is None or taken or session in self.closing or len(prompt) + min(new, 1) > CAPACITY:
            with pytest.raises((InvalidRequest, TooLong)):
                self.driver.generate(ids, session, new, rid=rid, branch=branch)
            return
        heard = self.driver.generate(ids, session, new, rid=rid, branch=branch)
        self.driver.deliver()
        for gone in dropped & running.keys():
            assert running.pop(gone).heard.aborted.reason == "superseded"
        for gone in dropped & done.keys():
            del done[gone]
        running[rid] = Asked(heard, branch.rid, prompt, min(new, CAPACITY - len(prompt)))

    def _history(self, done: dict[str, Asked], branch: Branch) -> list[int] | None:
        if branch.rid is None:
            return [] if branch.offset <= 0 else None
        if branch.rid not in done:
            return None
        parent = done[branch.rid]
        whole = parent.prompt + ([] if branch.drop_previous_output else parent.heard.ids)
        kept = whole[: branch.offset] if branch.offset else whole
        return kept if kept and branch.offset <= len(whole) else None

    def _behind(self, session: str, root: str | None) -> set[str]:
        every = self.done[session] | self.running[session]
        behind = {rid for rid, asked in every.items() if asked.after == root}
        for rid in list(behind):
            behind |= self._behind(session, rid)
        return behind

    @rule(session=sessions, pick=picks, how=st.sampled_from(["abort", "cancel"]))
    def abort(self, session, pick, how):
        running = self.running[session]
        if not running:
            return
        rid = list(running)[pick % len(running)]
        if how == "cancel":
            self.driver.core.cancel(running[rid].heard, "disconnected", "gone")
        else:
            self.driver.core.abort(rid)
        self.driver.deliver()
        self.collect()

    @rule(session=sessions, meant=seldom)
    def close(self, session, meant):
        if meant:
            self.driver.core.close(session)
            self.closing.add(session)
            self.collect()

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.driver.steps()
            self.collect()

    @rule()
    def flush(self):
        if self.driver.core.idle:
            self.driver.core.flush()
            memory = self.driver.core.state().memory
            assert (memory.available, memory.rows_free) == (memory.total, memory.rows_total)

    def collect(self) -> None:
        for session in SESSIONS:
            running = self.running[session]
            for rid, asked in list(running.items()):
                if asked.heard.ended:
                    del running[rid]
                    self._ended(session, rid, asked)
            if session in self.closing and not running:
                self.closing.discard(session)
                self.done[session].clear()
                self.driver.core.open(session, CAPACITY, None, streaming=False)

    def _ended(self, session: str, rid: str, asked: Asked) -> None:
        if isinstance(asked.heard.events[-1], Aborted):
            return
        assert asked.heard.started.prompt_tokens == len(asked.prompt)
        assert asked.heard.ids == continuation(asked.prompt, asked.new)
        self.done[session][rid] = asked

    @invariant()
    def books_balance(self):
        if hasattr(self, "driver"):
            self.collect()
            self.driver.core.verify()
            assert len(self.driver.core.slots) == 0

    def teardown(self):
        if hasattr(self, "driver"):
            self.driver.settle(3000)
            self.collect()
            assert not any(self.running.values())
            self.flush()


BranchMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestBranchMachine = BranchMachine.TestCase
