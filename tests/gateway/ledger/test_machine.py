"""The ledger against a pure model: several gateways, takeovers, zombies, replays, and a Redis that comes back older.

The model knows nothing of leases, scripts or Redis: a session is a log of committed turns and at most one fence that
may extend it. Hypothesis looks for a history on which the two disagree. `test_without_the_fence…` shows that it finds
one as soon as the commit stops comparing.
"""

from __future__ import annotations

import asyncio
import copy
from dataclasses import dataclass, field, replace
from typing import ClassVar

import hypothesis.strategies as st
import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from berth_api import errors, heads
from berth_api.public import Usage
from berth_api.wire import FinishReason
from berth_gateway.ledger.errors import FenceLost
from berth_gateway.ledger.ledger import Ledger
from berth_gateway.ledger.records import Acquired, Fence, Known

NAMES = ("alice", "bob")
TURNS = ("t1", "t2", "t3")
GATEWAYS = 3
PREFIX = "berth:{default}:"


@dataclass
class Session:
    """What the model believes."""

    uid: str
    log: list[tuple[str, bytes]] = field(default_factory=list)
    fences: dict[str, Fence] = field(default_factory=dict)
    """Of each committed turn, the fence that committed it."""
    owner: Fence | None = None
    alive: bool = False
    """The owner's lease."""
    aborted: dict[str, Fence | None] = field(default_factory=dict)
    """Turns that ended in vain, with the fence that last tried."""

    @property
    def head(self) -> str:
        head = heads.ROOT
        for _, ids in self.log:
            head = heads.advance(head, ids)
        return head

    def committed(self, turn: str) -> bool:
        return turn in self.fences

    def drop_owner(self) -> None:
        if self.owner is not None:
            self.aborted[self.owner.turn] = self.owner
        self.owner, self.alive = None, False


class Replayed:
    """A transport that, told to, sends a script a second time and answers with that: a reply that was lost."""

    def __init__(self, transport) -> None:
        self.transport = transport
        self.twice = False

    async def run(self, *args, **more):
        if self.twice:
            await self.transport.run(*args, **more)
        return await self.transport.run(*args, **more)

    def __getattr__(self, name):
        return getattr(self.transport, name)


class Machine(RuleBasedStateMachine):
    """Gateways act in any order; every answer and every history must be the model's."""

    tries = Bundle("tries")
    """(fence, parent, ids) of every attempt ever begun, living or zombie."""
    snapshots = Bundle("snapshots")

    def __init__(self, runner: asyncio.Runner, gateways: list[Ledger], client: redis.Redis) -> None:
        super().__init__()
        self.runner, self.gateways, self.client = runner, gateways, client
        client.flushdb()
        self.sessions: dict[str, Session] = {}
        self.closed: set[str] = set()
        self.counter = 0
        self.issued: set[tuple[str, int, int]] = set()
        put = gateways[0].put_worker
        for worker in ("w1", "w2"):
            runner.run(put("default", worker, fleet="default", url="http://w", slots=1, fingerprint="f"))

    def ask(self, gateway: int, twice: bool, call):
        """Return the answer, or the refusal as a value."""
        ledger = self.gateways[gateway]
        ledger._transport.twice = twice

        async def answered():
            try:
                return await call(ledger)
            except errors.BerthError as refusal:
                return refusal
            finally:
                ledger._transport.twice = False

        return self.runner.run(answered())

    def issue(self, name: str, fence: Fence) -> None:
        """A fence is given out once, whatever Redis forgot in between."""
        key = (fence.uid, fence.epoch, fence.attempt)
        assert key not in self.issued, f"{name}: {key} was given out twice"
        self.issued.add(key)

    where: ClassVar = {"gateway": st.integers(0, GATEWAYS - 1), "twice": st.booleans()}

    @rule(name=st.sampled_from(NAMES), **where)
    def open(self, name, gateway, twice):
        self.counter += 1
        uid = f"u{self.counter}"
        opened = self.ask(gateway, twice, lambda ledger: ledger.open("default", name, uid, fleet="default"))
        if name in self.sessions:
            assert isinstance(opened, errors.SessionExists)
        else:
            assert (opened.created, opened.session.turns) == (True, 0)
            self.sessions[name] = Session(uid)

    @rule(target=tries, name=st.sampled_from(NAMES), turn=st.sampled_from(TURNS), **where)
    def acquire(self, name, turn, gateway, twice):
        def call(ledger):
            return ledger.acquire("default", name, turn, digest="d", input_tokens=1, lease_s=600)

        answer = self.ask(gateway, twice, call)
        session = self.sessions.get(name)
        if session is None:
            assert isinstance(answer, errors.NoSuchSession)
        elif session.committed(turn):
            assert isinstance(answer, Known)
            assert answer.outcome.epoch == session.fences[turn].epoch
        elif session.owner is not None and session.alive:
            assert isinstance(answer, errors.TurnInFlight)
        else:
            assert isinstance(answer, Acquired)
            self.issue(name, answer.fence)
            assert (answer.parent, answer.turns) == (session.head, len(session.log))
            if session.owner is not None and session.owner.turn != turn:
                session.drop_owner()
            session.owner, session.alive = answer.fence, True
            self.counter += 1
            return (answer.fence, answer.parent, self.counter.to_bytes(4, "little"))
        return multiple()

    @rule(attempt=tries, **where)
    def commit(self, attempt, gateway, twice):
        fence, parent, ids = attempt

        def call(ledger):
            done, usage = FinishReason("length"), Usage(1, 1, 0)
            return ledger.commit(fence, parent=parent, ids=ids, input_tokens=0, finish=done, usage=usage)

        answer = self.ask(gateway, twice, call)
        session = self.sessions.get(fence.name)
        if session is None or session.uid != fence.uid:
            assert isinstance(answer, FenceLost)
        elif session.fences.get(fence.turn) == fence:
            assert answer.outcome.state == "committed"
        elif session.owner == fence:
            assert answer.outcome.position == len(session.log)
            session.log.append((fence.turn, ids))
            session.fences[fence.turn] = fence
            session.owner, session.alive = None, False
            assert answer.outcome.head == session.head
        else:
            assert isinstance(answer, FenceLost)

    @rule(attempt=tries, **where)
    def abort(self, attempt, gateway, twice):
        fence = attempt[0]
        answer = self.ask(gateway, twice, lambda ledger: ledger.abort(fence, reason="x"))
        session = self.sessions.get(fence.name)
        if session is None or session.uid != fence.uid:
            assert isinstance(answer, FenceLost)
        elif session.owner == fence:
            session.drop_owner()
            assert answer.outcome.state == "aborted"
        elif session.fences.get(fence.turn) == fence:
            assert answer.outcome.state == "committed"
        elif session.aborted.get(fence.turn) == fence and not session.committed(fence.turn):
            assert answer.outcome.state == "aborted"
        else:
            assert isinstance(answer, FenceLost)

    @rule(target=tries, attempt=tries, lift=st.booleans(), **where)
    def move_or_lift(self, attempt, lift, gateway, twice):
        fence, parent, ids = attempt

        async def call(ledger):
            if lift:
                return await ledger.lift(fence, seen=(fence.epoch + 5, 1), lease_s=600)
            return (await ledger.move(fence, lease_s=600)).fence

        answer = self.ask(gateway, twice, call)
        session = self.sessions.get(fence.name)
        if session is None or session.owner != fence:
            assert isinstance(answer, FenceLost)
            return multiple()
        assert (answer.epoch, answer.attempt) > (fence.epoch, fence.attempt)
        self.issue(fence.name, answer)
        session.owner, session.alive = answer, True
        return (answer, parent, ids)

    @rule(attempt=tries, **where)
    def renew(self, attempt, gateway, twice):
        fence = attempt[0]
        answer = self.ask(gateway, twice, lambda ledger: ledger.renew(fence, lease_s=600))
        session = self.sessions.get(fence.name)
        tenure = session and session.owner and (session.owner.holder, session.owner.uid)
        if tenure == (fence.holder, fence.uid):
            session.alive = True
        else:
            assert isinstance(answer, FenceLost)

    @rule(name=st.sampled_from(NAMES))
    def gateway_dies(self, name):
        """The lease runs out; whoever held it may still come back."""
        session = self.sessions.get(name)
        if session is not None and session.owner is not None:
            self.client.hset(f"{PREFIX}session:{name}", "lease_until", 1)
            session.alive = False

    @rule(name=st.sampled_from(NAMES), **where)
    def close(self, name, gateway, twice):
        session = self.sessions.get(name)
        if session is not None and session.alive:
            return
        answer = self.ask(gateway, twice, lambda ledger: ledger.close("default", name))
        if session is None:
            assert isinstance(answer, errors.NoSuchSession)
        else:
            assert answer.uid == session.uid
            self.closed.add(session.uid)
            del self.sessions[name]

    @rule(target=snapshots)
    def save(self):
        dump = {key: self.client.dump(key) for key in self.client.scan_iter()}
        return (dump, copy.deepcopy(self.sessions))

    @rule(snapshot=consumes(snapshots))
    def redis_comes_back_older(self, snapshot):
        dump, sessions = snapshot
        self.client.flushdb()
        for key, value in dump.items():
            self.client.restore(key, 0, value)
        self.sessions = copy.deepcopy(sessions)

    @invariant()
    def histories_are_the_models(self):
        for name, session in self.sessions.items():
            record = self.runner.run(self.gateways[0].session("default", name))
            assert (record.uid, record.turns, record.head) == (session.uid, len(session.log), session.head)
            assert (record.turn is not None) == session.alive
            history = self.runner.run(self.gateways[0].history("default", name, uid=session.uid))
            assert history.turns == [ids for _, ids in session.log]
            turns = [turn for turn, _ in session.log]
            assert len(set(turns)) == len(turns)


@pytest.fixture
def explore(redis_url):
    """Run the machine; `edit(script text)` makes another ledger of it."""
    with asyncio.Runner() as runner, redis.Redis.from_url(redis_url) as client:
        gateways: list[Ledger] = []

        def run(edit=None, *, examples: int, steps: int, phases=(Phase.generate, Phase.shrink)) -> None:
            for _ in range(GATEWAYS):
                ledger = Ledger.connect(redis_url)
                ledger._transport = Replayed(ledger._transport)
                gateways.append(ledger)
                if edit is not None:
                    script = ledger._scripts["commit"]
                    ledger._scripts["commit"] = replace(script, text=edit(script.text), sha="0" * 40)
            run_state_machine_as_test(
                lambda: Machine(runner, gateways, client),
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=steps,
                    deadline=None,
                    database=None,
                    derandomize=True,
                    suppress_health_check=list(HealthCheck),
                    phases=phases,
                    print_blob=False,
                    report_multiple_bugs=False,
                ),
            )

        yield run
        for ledger in gateways:
            runner.run(ledger.aclose())


def test_the_ledger_is_the_model(explore):
    explore(examples=60, steps=40)


def test_without_the_fence_the_model_finds_a_double_commit(explore):
    def unfenced(text: str) -> str:
        fence = "if not holds(session, fence) then return fence_lost(fence) end"
        assert text.count(fence) == 1
        return text.replace(fence, "if not session then return fence_lost(fence) end")

    with pytest.raises(AssertionError, match="FenceLost"):
        explore(unfenced, examples=300, steps=40, phases=(Phase.generate,))
