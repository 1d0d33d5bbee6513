"""A gateway as a worker sees it: turns with fences and heads, commits that get lost, forks, resumptions, orders."""

from __future__ import annotations

import asyncio
import random
import uuid
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from tally import Tally

from berth_api import heads
from berth_api.wire import TURN_CONTENT_TYPE, Aborted, Finished, Sampling, Tokens, TurnRequest, WorkerEvent
from fleetkit.native import Native

WIRE = {"X-Berth-Wire": "1"}
LONGEST = 600
"""Tokens after which a session is given up."""


def pack(ids: list[int]) -> bytes:
    return np.array(ids, "<i4").tobytes()


@dataclass
class Ledger:
    """One session: committed turns, and the epoch of the last attempt."""

    turns: list[list[int]] = field(default_factory=list)
    uid: str = field(default_factory=lambda: uuid.uuid4().hex)
    epoch: int = 0

    @property
    def ids(self) -> list[int]:
        return [token for turn in self.turns for token in turn]

    @property
    def head(self) -> str:
        head = heads.ROOT
        for turn in self.turns:
            head = heads.advance(head, pack(turn))
        return head


@dataclass
class Told:
    """What one attempt led to: the output ids, and the last event (None: it was left)."""

    ids: list[int]
    last: Finished | Aborted | None = None


class GatewayUser:
    """Keeps one session at a time, sometimes a fork of it, and forgets what has grown long."""

    def __init__(self, worker: Native, tally: Tally, dice: random.Random, fingerprint: str) -> None:
        self._worker, self._tally, self._dice, self._fingerprint = worker, tally, dice, fingerprint
        self._manners = {
            self._committed: 50,
            self._lost: 8,
            self._left: 8,
            self._resumed: 8,
            self._superseded: 6,
            self._stopped: 6,
            self._rolled_back: 6,
            self._forked: 6,
            self._refused: 6,
            self._hibernated: 4,
        }

    async def run(self) -> None:
        ledger = Ledger()
        while not self._tally.ending.is_set():
            [manner] = self._dice.choices(list(self._manners), list(self._manners.values()))
            self._tally.done[f"gateway turns {manner.__name__.strip('_')}"] += 1
            ledger = await manner(ledger) or ledger
            if len(ledger.ids) > LONGEST:
                await self._hibernated(ledger)
                ledger = Ledger()
        await self._hibernated(ledger)

    # Attempts

    def _request(self, ledger: Ledger, *, new: int | None = None, attempt: int = 1, **options: Any) -> TurnRequest:
        """The next attempt; `attempt` 1 begins an epoch."""
        ledger.epoch += attempt == 1
        sampling = Sampling(max_new_tokens=new or self._dice.choice([1, 4, 12, 40]), temperature=0, ignore_eos=True)
        options = {"input_ids": pack([self._dice.randrange(256) for _ in range(self._dice.randint(1, 30))])} | options
        return TurnRequest(
            session=f"default/{ledger.uid}",
            uid=ledger.uid,
            turn=f"t{ledger.epoch}",
            epoch=ledger.epoch,
            attempt=attempt,
            parent=ledger.head,
            seed=7,
            sampling=sampling,
            fingerprint=self._fingerprint,
            **options,
        )

    async def _post(self, request: TurnRequest, leave_after: int | None = None) -> tuple[int, Any]:
        """POST an attempt; return the status and `Told`, or the error."""
        headers = WIRE | {"Content-Type": TURN_CONTENT_TYPE}
        data = msgspec.msgpack.encode(request)
        async with self._worker.http.post(self._worker.url + "/generate", data=data, headers=headers) as answer:
            if answer.status != 200:
                return answer.status, (await answer.json())["error"]
            told = Told([])
            async for line in answer.content:
                if not line.startswith(b"data: "):
                    continue
                event = msgspec.json.decode(line[6:], type=WorkerEvent)
                if isinstance(event, Tokens):
                    told.ids += event.ids
                elif isinstance(event, Finished | Aborted):
                    told.last = event
                if leave_after is not None and len(told.ids) >= leave_after:
                    answer.close()
                    break
            return 200, told

    async def _attempt(self, ledger: Ledger, request: TurnRequest, leave_after: int | None = None) -> tuple[int, Any]:
        """Post an attempt, and again with the history where the worker asks for it."""
        history = [pack(turn) for turn in ledger.turns]
        status, told = await self._post(request, leave_after)
        if status == 409 and told["type"] == "history_required":
            return await self._post(msgspec.structs.replace(request, history=history, history_base=""), leave_after)
        return status, told

    async def _run(self, ledger: Ledger, request: TurnRequest, leave_after: int | None = None) -> Told | None:
        """An attempt that must be accepted; None, and a note, when it is not."""
        status, told = await self._attempt(ledger, request, leave_after)
        if status != 200:
            self._tally.odd.append(f"a gateway's turn was refused: {status} {told}")
            return None
        return told

    def _output(self, ledger: Ledger, request: TurnRequest, told: Told | None) -> list[int] | None:
        """The turn's ids, input and output, if it ended well; its head is checked."""
        if told is None or not isinstance(told.last, Finished):
            self._tally.expect(told is None, f"a gateway's turn did not end well: {told}")
            return None
        given, resumed = (np.frombuffer(ids, "<i4").tolist() for ids in (request.input_ids, request.resume_ids))
        output = resumed + told.ids
        head = heads.advance(ledger.head, pack(given + output))
        self._tally.expect(told.last.head == head, f"session {ledger.uid}: head {told.last.head}, not {head}")
        self._tally.offer(ledger.ids + given, output, f"gateway session {ledger.uid}, epoch {request.epoch}")
        return given + output

    async def _take(self, ledger: Ledger, request: TurnRequest, *, commit: bool = True) -> None:
        turn = self._output(ledger, request, await self._run(ledger, request))
        if turn is not None and commit:
            ledger.turns.append(turn)

    # Manners

    async def _committed(self, ledger: Ledger) -> None:
        await self._take(ledger, self._request(ledger))

    async def _lost(self, ledger: Ledger) -> None:
        """The turn ends; its commit does not come to be. The next one names the old parent."""
        await self._take(ledger, self._request(ledger), commit=False)

    async def _left(self, ledger: Ledger) -> None:
        await self._run(ledger, self._request(ledger, new=40), leave_after=self._dice.randint(0, 5))

    async def _resumed(self, ledger: Ledger) -> None:
        """The connection breaks; the next attempt goes on behind what was heard."""
        request = self._request(ledger, new=40)
        told = await self._run(ledger, request, leave_after=self._dice.randint(1, 10))
        if told is None or told.last is not None:
            return
        again = self._request(ledger, new=40, attempt=2, input_ids=request.input_ids, resume_ids=pack(told.ids))
        await self._take(ledger, again)

    async def _superseded(self, ledger: Ledger) -> None:
        """A newer attempt ends the older one, or finds that it had ended, or comes before it."""
        request = self._request(ledger, new=40)
        older = asyncio.create_task(self._attempt(ledger, request))
        await asyncio.sleep(self._dice.random() * 0.05)
        newer = self._request(ledger, new=40, attempt=2, input_ids=request.input_ids)
        told = await self._run(ledger, newer)
        status, first = await older
        if status != 200:
            self._tally.expect(first["type"] == "stale", f"an attempt that came late: {status} {first}")
        elif isinstance(first.last, Aborted):
            self._tally.expect(first.last.reason == "superseded", f"superseded, and told {first.last}")
        if (turn := self._output(ledger, newer, told)) is not None:
            ledger.turns.append(turn)

    async def _stopped(self, ledger: Ledger) -> None:
        """A stop commits what was said."""
        request = self._request(ledger, new=60)
        running = asyncio.create_task(self._run(ledger, request))
        await asyncio.sleep(self._dice.random() * 0.1)
        order = {"uid": request.uid, "turn": request.turn, "epoch": request.epoch, "attempt": 1}
        await self._order("/berth/stop", order)
        turn = self._output(ledger, request, await running)
        if turn is not None:
            ledger.turns.append(turn)

    async def _rolled_back(self, ledger: Ledger) -> None:
        """A restored ledger has lost its last turns."""
        if ledger.turns:
            del ledger.turns[-self._dice.randint(1, 2) :]
        await self._take(ledger, self._request(ledger))

    async def _forked(self, ledger: Ledger) -> Ledger:
        fork = Ledger([list(turn) for turn in ledger.turns[: self._dice.randint(0, len(ledger.turns))]])
        await asyncio.gather(self._take(fork, self._request(fork)), self._take(ledger, self._request(ledger)))
        stays, goes = (fork, ledger) if self._dice.random() < 0.5 else (ledger, fork)
        await self._hibernated(goes)
        return stays

    async def _refused(self, ledger: Ledger) -> None:
        """Each of these is an error that names what is wrong, and changes nothing."""
        await self._take(ledger, self._request(ledger))
        stale = msgspec.structs.replace(self._request(ledger), epoch=ledger.epoch - 1)
        foreign = msgspec.structs.replace(self._request(ledger), fingerprint="another")
        unknown = msgspec.structs.replace(self._request(ledger), parent="beef")
        for request, kinds in (
            (stale, {"stale", "duplicate"}),
            (foreign, {"conflict", "history_required"}),
            (unknown, {"history_required"}),
        ):
            status, error = await self._post(request)
            self._tally.expect(status == 409 and error["type"] in kinds, f"{kinds} expected: {status} {error}")
        status, error = await self._post(
            self._request(ledger, input_ids=pack([5] * 5000), history=[], history_base=ledger.head)
        )
        self._tally.expect(status in {409, 413}, f"an over-long turn: {status} {error}")

    async def _hibernated(self, ledger: Ledger) -> None:
        await self._order("/berth/release", {"uid": ledger.uid, "epoch": ledger.epoch})

    async def _order(self, path: str, order: dict[str, Any]) -> None:
        data = msgspec.json.encode(order)
        headers = WIRE | {"Content-Type": "application/json"}
        async with self._worker.http.post(self._worker.url + path, data=data, headers=headers) as answer:
            self._tally.expect(answer.status == 200, f"{path}: {answer.status} {await answer.text()}")
