"""Workers come, are cordoned, suspected and dropped under sessions: a loss is counted once, a slot never twice.

The model watches the sessions from outside: it knows which worker each was seen on and which workers were dropped, and
nothing of how the scripts keep their books.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import hypothesis.strategies as st
import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from berth_api.admin import Recovery
from berth_api.errors import BerthError
from berth_api.public import Usage
from berth_api.wire import FinishReason
from berth_gateway.ledger.ledger import Ledger
from berth_gateway.ledger.records import Fence

NAMES = st.sampled_from(("alice", "bob", "carol"))
WORKERS = st.sampled_from(("w1", "w2", "w3"))
PREFIX = "berth:{default}:"


@dataclass
class Session:
    """What the model believes. `lost`: the worker that went under it, and why; `last` without its time."""

    uid: str
    worker: str | None = None
    lost: tuple[str, str] | None = None
    recoveries: int = 0
    last: tuple[str, str, str] | None = None
    fence: Fence | None = None
    """Of the turn that runs."""
    parent: str = ""


class Machine(RuleBasedStateMachine):
    def __init__(self, runner: asyncio.Runner, ledger: Ledger, client: redis.Redis) -> None:
        super().__init__()
        self.runner, self.ledger, self.client = runner, ledger, client
        client.flushdb()
        self.workers: dict[str, bool] = {}
        """Registered ones: whether cordoned."""
        self.sessions: dict[str, Session] = {}
        self.turns = 0
        self.register("w1")
        self.open("alice", bind=True, suspend=False)

    def ask(self, call):
        """Return the answer; None where it was refused."""

        async def answered():
            try:
                return await call
            except BerthError:
                return None

        return self.runner.run(answered())

    @rule(worker=WORKERS)
    def register(self, worker):
        put = self.ledger.put_worker
        self.ask(put("default", worker, fleet="default", url="http://w", slots=2, fingerprint="f"))
        self.workers[worker] = False

    @rule(worker=WORKERS)
    def cordon(self, worker):
        if self.ask(self.ledger.cordon("default", worker, on=True)):
            self.workers[worker] = True

    @rule(worker=WORKERS, for_s=st.sampled_from((0, 60)))
    def suspect(self, worker, for_s):
        self.ask(self.ledger.suspect("default", worker, for_s=for_s))

    @rule(worker=WORKERS)
    def drop(self, worker):
        cordoned = self.workers.pop(worker, None)
        self.ask(self.ledger.drop_worker("default", worker))
        if cordoned is not None:
            for session in self.sessions.values():
                if session.worker == worker:
                    session.lost = (worker, "drained" if cordoned else "worker_lost")

    @rule(name=NAMES, bind=st.booleans(), suspend=st.booleans())
    def open(self, name, bind, suspend):
        session = self.sessions.setdefault(name, Session(f"u-{name}-{self.turns}"))
        call = self.ledger.open("default", name, session.uid, fleet="default", origin="cr", bind=bind, suspend=suspend)
        if self.ask(call) is None:
            del self.sessions[name]

    @rule(name=NAMES)
    def acquire(self, name):
        self.turns += 1
        call = self.ledger.acquire("default", name, f"t{self.turns}", digest="d", input_tokens=1, lease_s=600)
        if (acquired := self.ask(call)) is not None:
            self.sessions[name].fence, self.sessions[name].parent = acquired.fence, acquired.parent
            self.bound_again(name)

    @rule(name=NAMES, suspect_s=st.sampled_from((0, 60)))
    def move(self, name, suspect_s):
        session = self.sessions.get(name)
        if session and session.fence:
            moved = self.ask(self.ledger.move(session.fence, lease_s=600, suspect_s=suspect_s))
            if moved is not None:
                session.fence = moved.fence

    @rule(name=NAMES, good=st.booleans())
    def end(self, name, good):
        session = self.sessions.get(name)
        if not session or not session.fence:
            return
        if good:
            more = {"ids": b"\1\0\0\0", "input_tokens": 0, "finish": FinishReason("length"), "usage": Usage(1, 1, 0)}
            ended = self.ask(self.ledger.commit(session.fence, parent=session.parent, **more))
        else:
            ended = self.ask(self.ledger.abort(session.fence, reason="x"))
        assert ended is not None
        session.fence = None
        self.bound_again(name)

    @rule(name=NAMES)
    def hibernate(self, name):
        self.ask(self.ledger.hibernate("default", name))

    @rule(name=NAMES)
    def close(self, name):
        session = self.sessions.get(name)
        if session and not session.fence:
            self.ask(self.ledger.close("default", name, uid=session.uid, by="cr"))
            del self.sessions[name]

    def bound_again(self, name):
        """A turn that begins or ends where its session was lost shows that the worker is there after all."""
        session = self.sessions[name]
        there = self.runner.run(self.ledger.session("default", name)).worker
        if session.lost and there == session.lost[0] and there in self.workers:
            session.lost = None

    @invariant()
    def each_loss_is_counted_once(self):
        for name, session in self.sessions.items():
            seen = self.runner.run(self.ledger.session("default", name))
            if seen.worker and seen.worker != session.worker:
                left = session.lost
                if left is None and session.worker:
                    left = (session.worker, "drained" if self.workers.get(session.worker) else "worker_lost")
                if left and left[0] != seen.worker:
                    session.recoveries += 1
                    session.last = (left[0], seen.worker, left[1])
                session.lost = None
            session.worker = seen.worker
            assert (seen.recoveries, said(seen.last_recovery)) == (session.recoveries, session.last)
            assert seen.stranded == (session.lost is not None)

    @invariant()
    def slots_are_the_sessions(self):
        """Who is listed at a worker is who says so; a turn on a dropped one is listed nowhere."""
        listed = {}
        for worker in self.runner.run(self.ledger.workers("default")):
            listed |= dict.fromkeys((*worker.running, *worker.idle), worker.id)
            for name in worker.running:
                assert self.sessions[name].fence is not None
        said = {n: s.worker for n, s in self.sessions.items() if s.worker in self.workers}
        assert listed == said

    @invariant()
    def the_fleet_adds_up(self):
        fleet = self.ask(self.ledger.fleet("default", "default"))
        held = [s for s in self.sessions.values() if s.worker in self.workers]
        assert (fleet.resident, fleet.running) == (len(held), sum(s.fence is not None for s in held))
        assert fleet.slots == 2 * len(self.workers)
        waiting = {
            name.decode() for name in self.client.zrange(f"{PREFIX}fleet:default:waiting", 0, -1)
        } & self.sessions.keys()
        homeless = [n for n, s in self.sessions.items() if s.worker not in self.workers and n not in waiting]
        assert fleet.hibernated == len(homeless)


def said(recovery: Recovery | None) -> tuple[str, str, str] | None:
    return recovery and (recovery.from_, recovery.to, recovery.reason)


@pytest.fixture
def explore(redis_url):
    with asyncio.Runner() as runner, redis.Redis.from_url(redis_url) as client:
        ledger = Ledger.connect(redis_url)

        def run(examples: int, steps: int) -> None:
            run_state_machine_as_test(
                lambda: Machine(runner, ledger, client),
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=steps,
                    deadline=None,
                    database=None,
                    derandomize=True,
                    suppress_health_check=list(HealthCheck),
                    phases=(Phase.generate, Phase.shrink),
                    print_blob=False,
                ),
            )

        yield run
        runner.run(ledger.aclose())


def test_what_sessions_say_of_their_losses_is_what_happened(explore):
    explore(examples=60, steps=40)
