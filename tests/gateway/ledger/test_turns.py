"""Promises 1 and 2: one turn at a time with the right to commit, one commit a position, committed or never happened."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from msgspec import convert, msgpack

from berth_api import errors, heads
from berth_api.public import Usage
from berth_api.wire import FinishReason
from berth_gateway.ledger.errors import FenceLost
from berth_gateway.ledger.records import Acquired, Fence, Known

IDS = b"".join(token.to_bytes(4, "little") for token in (1, 2, 3))


@pytest.fixture(autouse=True)
async def alice(kit):
    await kit.worker()
    return await kit.open("alice")


async def test_a_turn_is_acquired_renewed_and_committed(kit, alice):
    acquired = await kit.acquire()
    assert isinstance(acquired, Acquired)
    assert (acquired.parent, acquired.turns, acquired.tokens) == ("", 0, 0)
    assert (acquired.placement.worker, acquired.placement.url) == ("w1", "http://w1")
    assert acquired.fingerprint == "model"
    assert acquired.seed == heads.default_seed(alice.uid, "", "t1")
    assert (await kit.session()).state == "running"

    assert (await kit.ledger.renew(acquired.fence, lease_s=60)).order is None

    ended = await kit.commit(acquired, 1, 2, 3)
    assert ended.outcome.head == heads.advance("", IDS)
    assert (ended.outcome.position, ended.outcome.input_tokens) == (0, 2)
    assert ended.outcome.finish == FinishReason("stop", matched=2)
    session = await kit.session()
    assert (session.state, session.turns, session.tokens) == ("resident", 1, 3)
    assert session.head == ended.outcome.head
    history = await kit.ledger.history("default", "alice", uid=alice.uid)
    assert (history.turns, history.head) == ([IDS], session.head)


async def test_the_next_turn_starts_from_the_committed_head_on_the_same_worker(kit):
    first = await kit.turn()
    second = await kit.acquire(turn="t2")
    assert (second.parent, second.turns, second.tokens) == (first.outcome.head, 1, 3)
    assert second.placement.holds_parent


async def test_an_explicit_seed_is_kept_and_the_default_is_the_same_in_a_rerun(kit):
    assert (await kit.acquire(turn="t1", seed=(1 << 63) - 1)).seed == (1 << 63) - 1
    await kit.expire()
    first = await kit.acquire(turn="t2")
    await kit.expire()
    again = await kit.acquire(turn="t2")
    assert again.seed == first.seed
    assert again.fence.epoch > first.fence.epoch


async def test_of_fifty_at_once_one_runs(kit, other):
    async def try_it(number: int):
        ledger = (kit.ledger, other)[number % 2]
        try:
            return await ledger.acquire("default", "alice", f"t{number}", digest="d", input_tokens=2, lease_s=60)
        except errors.TurnInFlight as refusal:
            return refusal

    answers = await asyncio.gather(*(try_it(number) for number in range(50)))
    winners = [answer for answer in answers if isinstance(answer, Acquired)]
    refused = [answer for answer in answers if isinstance(answer, errors.TurnInFlight)]
    assert (len(winners), len(refused)) == (1, 49)
    assert {answer.members["turn"] for answer in refused} == {winners[0].fence.turn}
    assert all(answer.members["retry_after"] > 0 for answer in refused)


async def test_the_same_turn_twice_at_once_is_in_flight_too(kit):
    await kit.acquire(turn="t1")
    with pytest.raises(errors.TurnInFlight):
        await kit.acquire(turn="t1")


async def test_a_committed_turn_is_known_for_ever_after(kit, alice):
    ended = await kit.turn()
    known = await kit.acquire(turn="t1")
    assert known == Known(alice.uid, ended.outcome)
    assert (await kit.session()).turns == 1
    assert await kit.ledger.outcome("default", "alice", "t1") == ended.outcome


@pytest.mark.parametrize("fate", ["committed", "aborted", "running", "expired"])
async def test_a_turn_id_with_another_payload_is_a_mismatch_whatever_became_of_it(kit, fate):
    acquired = await kit.acquire(turn="t1", digest="one")
    if fate == "committed":
        await kit.commit(acquired)
    elif fate == "aborted":
        await kit.ledger.abort(acquired.fence, reason="client_gone")
    elif fate == "expired":
        await kit.expire()
    with pytest.raises(errors.IdempotencyMismatch):
        await kit.acquire(turn="t1", digest="two")


async def test_an_aborted_turn_leaves_no_trace_in_the_history_and_may_run_again(kit):
    acquired = await kit.acquire()
    ended = await kit.ledger.abort(acquired.fence, reason="worker_lost", retry_safe=True)
    assert (ended.outcome.state, ended.outcome.reason, ended.outcome.position) == ("aborted", "worker_lost", None)
    session = await kit.session()
    assert (session.turns, session.tokens, session.head, session.turn) == (0, 0, "", None)
    assert await kit.ledger.outcome("default", "alice", "t1") == ended.outcome

    again = await kit.acquire()
    assert again.seed == acquired.seed
    assert (await kit.commit(again)).outcome.state == "committed"
    assert (await kit.ledger.outcome("default", "alice", "t1")).state == "committed"


async def test_a_zombie_cannot_commit_renew_move_or_lift_after_a_takeover(kit, other):
    zombie = await kit.acquire(turn="t1")
    await kit.expire()
    heir = await other.acquire("default", "alice", "t2", digest="d", input_tokens=2, lease_s=60)
    assert heir.fence.epoch > zombie.fence.epoch
    for act in (
        kit.commit(zombie),
        kit.ledger.renew(zombie.fence, lease_s=60),
        kit.ledger.move(zombie.fence, lease_s=60),
        kit.ledger.lift(zombie.fence, seen=(1, 1), lease_s=60),
    ):
        with pytest.raises(FenceLost):
            await act
    late = await kit.ledger.abort(zombie.fence, reason="late")
    assert late.outcome.reason == "gateway_lost"
    await kit.commit(heir, ledger=other)
    with pytest.raises(FenceLost):
        await kit.commit(zombie)
    lost = await kit.ledger.outcome("default", "alice", "t1")
    assert (lost.state, lost.reason) == ("aborted", "gateway_lost")
    assert (await kit.session()).turns == 1


async def test_a_zombie_of_the_same_turn_id_is_refused_as_well(kit, other):
    zombie = await kit.acquire(turn="t1")
    await kit.expire()
    heir = await other.acquire("default", "alice", "t1", digest="d", input_tokens=2, lease_s=60)
    with pytest.raises(FenceLost):
        await kit.commit(zombie, 7, 7, 7)
    await kit.commit(heir, 1, 2, 3)
    with pytest.raises(FenceLost):
        await kit.commit(zombie, 7, 7, 7)
    assert (await kit.session()).head == heads.advance("", IDS)


async def test_a_commit_just_past_its_lease_is_good_while_nobody_took_over(kit):
    acquired = await kit.acquire()
    await kit.expire()
    assert (await kit.ledger.outcome("default", "alice", "t1")).state == "unknown"
    assert (await kit.commit(acquired)).outcome.state == "committed"


async def test_move_goes_elsewhere_and_voids_the_old_attempt(kit):
    await kit.worker("w2")
    first = await kit.acquire()
    moved = await kit.ledger.move(first.fence, lease_s=60, suspect_s=10)
    assert (moved.fence.epoch, moved.fence.attempt) == (first.fence.epoch, 2)
    assert {first.placement.worker, moved.placement.worker} == {"w1", "w2"}
    assert moved.moves == 1
    assert (await kit.ledger.worker("default", first.placement.worker)).suspect
    with pytest.raises(FenceLost):
        await kit.commit(first)
    await kit.ledger.renew(first.fence, lease_s=60)  # a renewal that crossed the move
    session = await kit.session()
    assert session.worker == moved.placement.worker


async def test_a_re_post_stays_and_only_counts_the_attempt(kit):
    first = await kit.acquire()
    stayed = await kit.ledger.move(first.fence, lease_s=60, stay=True)
    assert (stayed.fence.attempt, stayed.moves) == (2, 0)
    assert stayed.placement.worker == first.placement.worker


async def test_without_another_worker_a_move_waits_and_the_fence_stays_good(kit):
    first = await kit.acquire()
    with pytest.raises(errors.NoCapacity):
        await kit.ledger.move(first.fence, lease_s=60, suspect_s=10)
    assert (await kit.ledger.fleet("default", "default")).pending == 1
    await kit.worker("w2")
    moved = await kit.ledger.move(first.fence, lease_s=60)
    assert moved.placement.worker == "w2"
    assert (await kit.ledger.fleet("default", "default")).pending == 0


async def test_lift_raises_the_epoch_above_what_a_worker_has_seen(kit):
    first = await kit.acquire()
    seen = first.fence.epoch + 3_600_000_000
    lifted = await kit.ledger.lift(first.fence, seen=(seen, 4), lease_s=60)
    assert (lifted.epoch, lifted.attempt, lifted.turn) == (seen + 1, 1, "t1")
    with pytest.raises(FenceLost):
        await kit.commit(first)
    await kit.ledger.abort(lifted, reason="done")
    assert (await kit.acquire(turn="t2")).fence.epoch > seen + 1


async def test_head_uid_and_length_are_preconditions_that_change_nothing(kit, alice):
    await kit.turn()
    before = await kit.state()
    with pytest.raises(errors.HeadMismatch) as mismatch:
        await kit.acquire(turn="t2", expect_head="f" * 40)
    assert mismatch.value.members["head"] == (await kit.session()).head
    with pytest.raises(errors.NoSuchSession):
        await kit.acquire(turn="t2", uid=str(uuid.uuid4()))
    assert await kit.state() == before
    assert (await kit.acquire(turn="t2", uid=alice.uid, expect_head=(await kit.session()).head)).turns == 1


async def test_history_and_input_beyond_the_sessions_limit_are_too_long(kit):
    from berth_gateway.ledger.records import Limits

    await kit.open("small", limits=Limits(max_tokens=5))
    await kit.turn("small")
    with pytest.raises(errors.TooLong) as refusal:
        await kit.acquire("small", "t2", input_tokens=3)
    assert refusal.value.members == {"tokens": 6, "limit": 5}
    assert (await kit.acquire("small", "t2", input_tokens=2)).max_tokens == 5


async def test_outcomes_of_commits_and_aborts_are_forgotten_apart(kit, make_ledger):
    kit.ledger = make_ledger(outcomes_kept=2, aborts_kept=1)
    for turn in ("t1", "t2", "t3"):
        await kit.turn(turn=turn)
    for turn in ("a1", "a2"):
        await kit.ledger.abort((await kit.acquire(turn=turn)).fence, reason="x")
    kept = []
    for turn in ("t1", "t2", "t3", "a1", "a2"):
        try:
            kept.append((await kit.ledger.outcome("default", "alice", turn)).turn)
        except errors.NoSuchTurn:
            continue
    assert kept == ["t2", "t3", "a2"]
    assert (await kit.session()).turns == 3


async def test_the_outcomes_of_a_session_are_its_commits_in_order(kit, alice):
    ended = [await kit.turn(turn=turn) for turn in ("t2", "t1")]
    await kit.ledger.abort((await kit.acquire(turn="t3")).fence, reason="x")
    assert await kit.ledger.outcomes("default", "alice", uid=alice.uid) == [end.outcome for end in ended]
    fork = await kit.open("fork", fork=("alice", None))
    assert await kit.ledger.outcomes("default", "fork", uid=fork.uid) == []


async def test_a_commit_outlives_the_abort_it_once_was(kit, make_ledger):
    kit.ledger = make_ledger(aborts_kept=1)
    await kit.ledger.abort((await kit.acquire(turn="t1")).fence, reason="x")
    await kit.turn(turn="t1")
    for turn in ("a1", "a2"):
        await kit.ledger.abort((await kit.acquire(turn=turn)).fence, reason="x")
    assert (await kit.ledger.outcome("default", "alice", "t1")).state == "committed"


async def test_a_replay_that_comes_after_the_turn_was_ended_takes_it_anew(kit, other):
    """A fence that is given out must be good, though the same call was answered before and its turn has ended since."""
    sent = []
    run = kit.ledger._transport.run

    async def recorded(*args, **more):
        sent.append(args)
        return await run(*args, **more)

    kit.ledger._transport.run = recorded
    first = await kit.acquire()
    await kit.expire()
    assert (await other.stop("default", "alice", "t1", mode="abort")).outcome.state == "aborted"
    reply, _ = await run(*sent[0])
    again = convert(msgpack.decode(reply)["fence"], Fence)
    assert again.epoch > first.fence.epoch
    await kit.ledger.renew(again, lease_s=60)


@pytest.mark.parametrize("mode", ["stop", "abort"])
async def test_an_order_reaches_the_owner_by_its_renewal(kit, other, mode):
    acquired = await kit.acquire()
    assert (await other.stop("default", "alice", "t1", mode=mode)).outcome.state == "running"
    assert (await kit.ledger.renew(acquired.fence, lease_s=60)).order == mode


async def test_abort_wins_over_stop_and_neither_outlives_the_turn(kit):
    acquired = await kit.acquire()
    for mode in ("stop", "abort", "stop"):
        await kit.ledger.stop("default", "alice", "t1", mode=mode)
    assert (await kit.ledger.renew(acquired.fence, lease_s=60)).order == "abort"
    await kit.ledger.abort(acquired.fence, reason="ordered")
    assert (await kit.ledger.stop("default", "alice", "t1", mode="stop")).outcome.state == "aborted"
    again = await kit.acquire()
    assert (await kit.ledger.renew(again.fence, lease_s=60)).order is None


async def test_an_order_to_a_turn_whose_gateway_died_ends_it(kit):
    zombie = await kit.acquire()
    await kit.expire()
    ended = await kit.ledger.stop("default", "alice", "t1", mode="abort")
    assert (ended.outcome.state, ended.outcome.reason) == ("aborted", "gateway_lost")
    with pytest.raises(FenceLost):
        await kit.commit(zombie)


async def test_an_order_to_a_dead_gateways_turn_carries_out_the_close_that_waited(kit):
    zombie = await kit.acquire()
    assert (await kit.ledger.close("default", "alice")).deferred
    await kit.expire()
    ended = await kit.ledger.stop("default", "alice", "t1", mode="abort")
    assert ended.closed
    assert (ended.release.uid, ended.release.worker) == (zombie.fence.uid, zombie.placement.worker)


async def test_orders_to_unknown_turns_and_sessions_say_so(kit):
    with pytest.raises(errors.NoSuchTurn):
        await kit.ledger.stop("default", "alice", "t9", mode="stop")
    with pytest.raises(errors.NoSuchTurn):
        await kit.ledger.outcome("default", "alice", "t9")
    with pytest.raises(errors.NoSuchSession):
        await kit.ledger.outcome("default", "bob", "t9")


async def test_an_empty_or_torn_turn_is_refused_and_the_fence_stays_good(kit):
    acquired = await kit.acquire()
    for ids, error in ((b"", errors.InvalidRequest), (b"123", ValueError)):
        with pytest.raises(error):
            await kit.ledger.commit(
                acquired.fence, parent="", ids=ids, input_tokens=0, finish=FinishReason("stop"), usage=Usage(0, 0, 0)
            )
    assert (await kit.commit(acquired)).outcome.state == "committed"


@pytest.mark.parametrize("turn", ["", "a b", "é", "x" * 201, "a:b", "\udcff"])
async def test_a_turn_id_is_a_plain_word(kit, turn):
    with pytest.raises(errors.InvalidRequest) as refusal:
        await kit.acquire(turn=turn)
    assert refusal.value.members["field"] == "turn"
