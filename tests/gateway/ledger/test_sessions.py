"""Sessions: opened once a uid, closed for ever, forked whole, listed by name."""

from __future__ import annotations

import uuid

import pytest

from berth_api import errors
from berth_gateway.ledger.errors import FenceLost
from berth_gateway.ledger.records import Limits

LIMITS = Limits(idle_timeout_s=60.0, hibernate_after_s=1.5, max_tokens=100, on_worker_failure="abort")


@pytest.fixture(autouse=True)
async def worker(kit):
    await kit.worker()


async def test_open_again_with_the_same_uid_is_the_same_session(kit):
    uid = str(uuid.uuid4())
    first = await kit.ledger.open("default", "alice", uid, fleet="default", limits=LIMITS)
    again = await kit.ledger.open("default", "alice", uid, fleet="default")
    assert (first.created, again.created) == (True, False)
    assert again.session == first.session
    assert again.session.limits == LIMITS
    assert (again.session.state, again.session.origin, again.session.fingerprint) == ("hibernated", "http", "model")


async def test_a_taken_name_is_refused_or_answered_as_asked(kit):
    first = await kit.open()
    with pytest.raises(errors.SessionExists):
        await kit.open()
    assert await kit.open(exist_ok=True) == first


async def test_an_unknown_fleet_and_bad_names_are_refused_by_name(kit):
    with pytest.raises(errors.NoSuchFleet):
        await kit.open(fleet="other")
    for field, call in (
        ("session", kit.ledger.session("default", "Not A Name")),
        ("namespace", kit.ledger.session("a}b", "alice")),
        ("fleet", kit.open(fleet="")),
        ("fleet", kit.open(fleet=None)),
        ("uid", kit.open(uid="a:b")),
        ("worker", kit.ledger.worker("default", "w1:idle")),
    ):
        with pytest.raises(errors.InvalidRequest) as refusal:
            await call
        assert refusal.value.members["field"] == field


async def test_close_is_for_ever_and_the_name_is_free_for_another(kit):
    old = await kit.open()
    await kit.turn()
    closed = await kit.ledger.close("default", "alice", uid=old.uid)
    assert (closed.release.uid, closed.release.worker) == (old.uid, "w1")
    assert await kit.ledger.close("default", "alice", uid=old.uid) == closed
    with pytest.raises(errors.NoSuchSession):
        await kit.session()
    with pytest.raises(errors.SessionClosing) as refusal:
        await kit.open(uid=old.uid)
    assert refusal.value.members["closed"]

    new = await kit.open()
    assert (new.turns, new.head) == (0, "")
    assert (await kit.acquire(turn="t1")).turns == 0  # known to the old uid, not to this one
    with pytest.raises(errors.NoSuchSession):
        await kit.ledger.history("default", "alice", uid=old.uid)


async def test_a_late_commit_of_a_closed_uid_is_refused_under_its_new_name_too(kit):
    old = await kit.open(origin="cr")
    zombie = await kit.acquire()
    await kit.open(origin="cr")
    with pytest.raises(FenceLost):
        await kit.commit(zombie)
    assert (await kit.session()).turns == 0
    assert (await kit.session()).uid != old.uid


@pytest.mark.parametrize("end", ["commit", "abort"])
async def test_a_close_while_a_turn_runs_waits_for_its_end(kit, end):
    session = await kit.open()
    acquired = await kit.acquire()
    closing = await kit.ledger.close("default", "alice")
    assert (closing.deferred, closing.release) == (True, None)
    assert (await kit.session()).state == "closing"
    with pytest.raises(errors.SessionClosing):
        await kit.acquire(turn="t2")
    with pytest.raises(errors.SessionClosing):
        await kit.open()
    await kit.ledger.renew(acquired.fence, lease_s=60)

    act = kit.commit(acquired) if end == "commit" else kit.ledger.abort(acquired.fence, reason="x")
    ended = await act
    assert ended.closed
    assert ended.release.uid == session.uid
    with pytest.raises(errors.NoSuchSession):
        await kit.session()


async def test_close_of_a_session_whose_gateway_died_is_at_once(kit):
    await kit.open()
    await kit.acquire()
    await kit.expire()
    assert not (await kit.ledger.close("default", "alice")).deferred
    with pytest.raises(errors.NoSuchSession):
        await kit.session()


async def test_a_resources_session_is_closed_by_its_resource_only(kit):
    session = await kit.open(origin="cr")
    with pytest.raises(errors.ManagedByResource):
        await kit.ledger.close("default", "alice")
    with pytest.raises(errors.SessionExists):
        await kit.open(origin="http")
    await kit.ledger.close("default", "alice", uid=session.uid, by="cr")
    await kit.open(origin="http")
    with pytest.raises(errors.NoSuchSession):
        await kit.ledger.close("default", "alice", by="cr")
    with pytest.raises(errors.SessionExists):
        await kit.open(origin="cr")


async def test_retain_leaves_the_session_to_http(kit):
    session = await kit.open(origin="cr", limits=Limits(deletion_policy="Retain"))
    await kit.turn()
    for _ in range(2):
        assert (await kit.ledger.close("default", "alice", uid=session.uid, by="cr")).retained
    kept = await kit.session()
    assert (kept.origin, kept.turns) == ("http", 1)
    again = await kit.open(uid=session.uid, origin="cr", limits=Limits(deletion_policy="Retain"))
    assert (again.origin, again.turns) == ("cr", 1)
    assert (await kit.ledger.close("default", "alice", uid=session.uid, by="cr")).retained
    with pytest.raises(errors.SessionExists):
        await kit.open(origin="cr")
    await kit.ledger.close("default", "alice")


async def test_a_closed_uid_is_remembered_while_its_resource_asks(kit):
    session = await kit.open(origin="cr")
    await kit.ledger.close("default", "alice", uid=session.uid, by="cr", reason="idle_timeout")
    stone = f"berth:{{default}}:tombstone:{session.uid}"
    await kit.redis.pexpire(stone, 60_000)
    with pytest.raises(errors.SessionClosing) as refusal:
        await kit.open(uid=session.uid, origin="cr")
    assert (refusal.value.members["reason"], refusal.value.members["closed"]) == ("idle_timeout", True)
    assert await kit.redis.pttl(stone) > 80_000_000


async def test_a_resource_with_a_new_uid_closes_the_old_ones_session_at_once(kit):
    old = await kit.open(origin="cr")
    await kit.turn()
    opened = await kit.ledger.open("default", "alice", str(uuid.uuid4()), fleet="default", origin="cr")
    assert [release.uid for release in opened.releases] == [old.uid]
    assert (opened.created, opened.session.turns) == (True, 0)
    with pytest.raises(errors.SessionClosing):
        await kit.open(uid=old.uid, origin="cr")


async def test_a_resource_changes_limits_suspends_and_resumes(kit):
    uid = str(uuid.uuid4())
    await kit.open(uid=uid, origin="cr")
    await kit.turn()
    opened = await kit.ledger.open("default", "alice", uid, fleet="default", origin="cr", limits=LIMITS, suspend=True)
    assert (opened.session.limits, opened.session.suspended, opened.session.state) == (LIMITS, True, "hibernated")
    assert [release.worker for release in opened.releases] == ["w1"]
    with pytest.raises(errors.ManagedByResource):
        await kit.acquire(turn="t2")
    await kit.open(uid=uid, origin="cr")
    assert (await kit.acquire(turn="t2")).turns == 1


async def test_a_resource_with_a_new_uid_ends_the_turn_of_the_old_ones_session(kit):
    old = await kit.open(origin="cr")
    acquired = await kit.acquire()
    await kit.ledger.close("default", "alice", uid=old.uid, by="cr")
    assert (await kit.session()).closing == "deleted"
    fresh = str(uuid.uuid4())
    opened = await kit.ledger.open("default", "alice", fresh, fleet="default", origin="cr", bind=True)
    assert [release.uid for release in opened.releases] == [old.uid]
    assert (opened.session.uid, opened.session.state) == (fresh, "resident")
    with pytest.raises(FenceLost):
        await kit.commit(acquired)
    assert (await kit.session()).turns == 0


async def test_a_session_suspended_in_a_turn_hibernates_at_its_end(kit):
    uid = str(uuid.uuid4())
    await kit.open(uid=uid, origin="cr")
    acquired = await kit.acquire()
    opened = await kit.ledger.open("default", "alice", uid, fleet="default", origin="cr", suspend=True)
    assert (opened.session.state, opened.releases) == ("running", [])
    assert (await kit.commit(acquired)).release.uid == uid
    assert (await kit.session()).state == "hibernated"


async def test_a_fork_has_the_sources_turns_and_goes_its_own_way(kit):
    await kit.open()
    for turn in ("t1", "t2", "t3"):
        await kit.turn(turn=turn, ids=(1, 2, int(turn[1])))
    source = await kit.session()
    whole = await kit.open("whole", fleet=None, fork=("alice", None))
    assert (whole.head, whole.turns, whole.tokens) == (source.head, 3, 9)
    assert (whole.fleet, whole.fingerprint) == ("default", "model")

    part = await kit.open("part", fork=("alice", 2))
    heads = await kit.ledger.heads("default", "alice", uid=source.uid)
    assert (part.head, part.turns, part.tokens) == (heads[2], 2, 6)
    assert await kit.ledger.heads("default", "part", uid=part.uid) == heads[:3]
    await kit.turn("part", "t3", ids=(9, 9, 9))
    assert (await kit.session()).head == source.head
    assert (await kit.open("empty", fork=("alice", 0))).head == ""


async def test_a_fork_takes_committed_turns_only(kit):
    await kit.open()
    await kit.turn()
    await kit.acquire(turn="t2")
    assert (await kit.open("fork", fork=("alice", None))).turns == 1


async def test_a_fork_of_a_long_session_is_whole(kit):
    session = await kit.open()
    fields = {f"turn:{i}": b"\1\0\0\0" for i in range(1203)} | {f"head:{i}": f"{i:040}" for i in range(1203)}
    fields |= {f"input:{i}": i for i in range(1203)}
    await kit.raw("alice", turns=1203, tokens=1203, head=f"{1202:040}", **fields)
    fork = await kit.open("fork", fork=("alice", None))
    assert (fork.turns, fork.tokens, fork.head) == (1203, 1203, f"{1202:040}")
    history = await kit.ledger.history("default", "fork", uid=fork.uid)
    assert history.turns == (await kit.ledger.history("default", "alice", uid=session.uid)).turns
    assert await kit.ledger.input_tokens("default", "fork", uid=fork.uid) == list(range(1203))
    assert (await kit.ledger.heads("default", "fork", uid=fork.uid))[1:] == [f"{i:040}" for i in range(1203)]


async def test_an_impossible_fork_names_the_field_and_makes_nothing(kit):
    await kit.open()
    await kit.turn()
    await kit.worker("v1", fleet="vision", fingerprint="other")
    before = await kit.state()
    for fork, fleet, error, name in (
        (("alice", 2), None, errors.InvalidRequest, "from.turn"),
        (("alice", None), "vision", errors.InvalidRequest, "fleet"),
        (("bob", None), None, errors.NoSuchSession, None),
    ):
        with pytest.raises(error) as refusal:
            await kit.open("fork", fork=fork, fleet=fleet)
        assert refusal.value.members.get("field") == name
    assert await kit.state() == before


async def test_history_is_read_by_ranges_of_turns(kit):
    session = await kit.open()
    for turn in ("t1", "t2", "t3"):
        await kit.turn(turn=turn, ids=(1, 2, int(turn[1])))
    heads = await kit.ledger.heads("default", "alice", uid=session.uid)
    part = await kit.ledger.history("default", "alice", uid=session.uid, start=1, stop=2)
    assert (part.start, part.base, part.head, len(part.turns)) == (1, heads[1], heads[2], 1)
    rest = await kit.ledger.history("default", "alice", uid=session.uid, start=3)
    assert (rest.base, rest.head, rest.turns) == (heads[3], heads[3], [])
    assert await kit.ledger.input_tokens("default", "alice", uid=session.uid, start=1) == [2, 2]
    for start, stop in ((0, 4), (2, 1), (4, None), (-1, None)):
        for read in (kit.ledger.history, kit.ledger.input_tokens):
            with pytest.raises(errors.InvalidRequest):
                await read("default", "alice", uid=session.uid, start=start, stop=stop)


async def test_sessions_are_paged_by_name(kit):
    for name in ("c", "a", "b"):
        await kit.open(name)
    first = await kit.ledger.sessions("default", limit=2)
    assert ([session.name for session in first.sessions], first.next) == (["a", "b"], "b")
    rest = await kit.ledger.sessions("default", after=first.next, limit=2)
    assert ([session.name for session in rest.sessions], rest.next) == (["c"], None)
    assert (await kit.ledger.sessions("elsewhere")).sessions == []
