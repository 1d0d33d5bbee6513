"""A gateway's turn that was not committed is rolled back, over a real model's KV, at every page size."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import msgspec
import pytest

from berth_api.wire import TURN_CONTENT_TYPE, Finished, Sampling, Started, Tokens, TurnRequest
from modelkit.talk import Said, Worker
from workerkit.driver import head_of, pack
from workerkit.sse import events

HEADERS = {"Content-Type": TURN_CONTENT_TYPE, "X-Berth-Wire": "1"}
GREEDY = Sampling(temperature=0, max_new_tokens=8, ignore_eos=True)


@dataclass
class Ledger:
    """A gateway's side of one session: its committed turns, and a fence that rises."""

    worker: Worker
    fingerprint: str
    uid: str = field(default_factory=lambda: uuid.uuid4().hex)
    turns: list[list[int]] = field(default_factory=list)
    epoch: int = 0

    @property
    def ids(self) -> list[int]:
        return [token for turn in self.turns for token in turn]

    async def turn(self, ids: list[int], **options) -> Said:
        """Run a turn on the committed ones. It is not committed by that."""
        self.epoch += 1
        request = TurnRequest(
            session="default/s",
            uid=self.uid,
            turn=f"t{self.epoch}",
            epoch=self.epoch,
            attempt=1,
            parent=head_of(*self.turns),
            input_ids=pack(ids),
            sampling=GREEDY,
            seed=1,
            fingerprint=self.fingerprint,
            **options,
        )
        body, url = msgspec.msgpack.encode(request), self.worker.url + "/generate"
        async with self.worker.http.post(url, data=body, headers=HEADERS) as response:
            assert response.status == 200, await response.text()
            heard = [event async for event in events(response)]
        assert isinstance(heard[-1], Finished), heard
        [cached] = [event.cached_tokens for event in heard if isinstance(event, Started)]
        output = [token for event in heard if isinstance(event, Tokens) for token in event.ids]
        return Said(self.ids + ids, {"output_ids": output, "meta_info": {"cached_tokens": cached}})

    def commit(self, said: Said) -> None:
        self.turns.append(said.ids[len(self.ids) :])


@pytest.fixture
async def ledger(worker) -> AsyncIterator[Ledger]:
    async with worker.http.get(worker.url + "/berth/model") as response:
        yield Ledger(worker, (await response.json())["fingerprint"])
    await worker.flush()


@pytest.fixture
def told(judge) -> Callable[[Said], Said]:
    """Judge an answer and pass it on."""

    def told(said: Said) -> Said:
        judge([said])
        return said

    return told


async def test_the_tail_of_a_turn_that_was_not_committed_is_freed(worker, row, ledger, told):
    """The turn's own tokens give their pages back where the next one begins; what lies before stays, to the token.

    Unless the turn was retracted: then it was prefilled from nothing, and the tree owns pages beyond the target.
    """
    ledger.commit(told(await ledger.turn(worker.words(300))))
    assert told(await ledger.turn(worker.words(400))).cached == 307
    kept = {308, 308 // row.page * row.page} if row.retracts else {308}
    for length in (20, 1, 9):
        said = told(await ledger.turn(worker.words(length)))
        assert said.cached in kept
    ledger.commit(said)
    assert told(await ledger.turn(worker.words(9))).cached == 324


async def test_a_first_turn_that_was_not_committed_leaves_its_prompt_to_the_tree(worker, row, ledger, told):
    prompt = worker.words(300)
    await ledger.turn(prompt)
    assert told(await ledger.turn(prompt)).cached == 299 // row.page * row.page


async def test_a_target_below_what_the_tree_owns_begins_anew(worker, row, ledger, told):
    """The uncommitted input became the tree's when it was prefilled from nothing: it is not the session's to cut."""
    ledger.commit(told(await ledger.turn(worker.words(10))))
    await worker.flush()
    history = [pack(turn) for turn in ledger.turns]
    told(await ledger.turn([1, *worker.words(299)], history=history))
    again = told(await ledger.turn([2, *worker.words(299)], history=history))
    assert again.cached == 18 // row.page * row.page
