"""Clients of a worker's native HTTP: sessions in every manner, requests without one, and requests that must be refused.

A session's user keeps the history as it was told, and each turn's `prompt_tokens` must agree with it.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from tally import Tally

from fleetkit.native import Heard, Native

CAPACITY = 700
"""Tokens of a session: a few turns of all lengths."""
IDLE_S = 3.0
"""Time-out of sessions that are left to be reaped; longer than its user ever hesitates."""
PATIENCE_S = 20.0


def words(dice: random.Random, least: int = 1, most: int = 30) -> list[int]:
    return [dice.randrange(256) for _ in range(dice.randint(least, most))]


@dataclass
class Session:
    """One native session as its only user knows it. `over`: what is committed is not known any more."""

    id: str
    history: list[int] = field(default_factory=list)
    over: bool = False


class SessionUser:
    """Opens a session, takes its turns, ends it in some way; and again."""

    def __init__(self, worker: Native, tally: Tally, dice: random.Random) -> None:
        self._worker, self._tally, self._dice = worker, tally, dice
        self._manners = {
            self._streamed: 35,
            self._plain: 20,
            self._scored: 10,
            self._left: 10,
            self._aborted: 10,
            self._overlapped: 8,
            self._too_long: 5,
        }

    async def run(self) -> None:
        while not self._tally.ending.is_set():
            reaped = self._dice.random() < 0.1
            options = {"timeout": IDLE_S} if reaped else {}
            session = Session(await self._worker.open(CAPACITY, **options))
            await self._life(session)
            await (self._wait_for_reaping(session) if reaped else self._end(session))

    async def _life(self, session: Session) -> None:
        for _ in range(self._dice.randint(1, 12)):
            if session.over or len(session.history) > CAPACITY - 100 or self._tally.ending.is_set():
                return
            [manner] = self._dice.choices(list(self._manners), list(self._manners.values()))
            self._tally.done[f"session turns {manner.__name__.strip('_')}"] += 1
            await manner(session)

    def _body(self, session: Session, new: int | None = None, **options: Any) -> dict[str, Any]:
        greedy = self._dice.random() < 0.5
        sampling: dict[str, Any] = {"ignore_eos": True, "max_new_tokens": new or self._dice.choice([1, 4, 12, 40])}
        sampling |= {"temperature": 0} if greedy else {"temperature": 0.9, "top_p": 0.95}
        ids = words(self._dice)
        return {"input_ids": ids, "sampling_params": sampling, "session_params": {"id": session.id}} | options

    def _ended(self, session: Session, body: dict[str, Any], ids: list[int], meta: dict[str, Any]) -> None:
        """A turn's answer is whole: the history follows."""
        prompt = session.history + body["input_ids"]
        told = f"session {session.id}: {meta}"
        aborted = meta["finish_reason"]["type"] == "abort"
        if aborted and not meta["prompt_tokens"]:
            return  # it was still queued
        self._tally.expect(meta["prompt_tokens"] == len(prompt), f"{told}, {len(prompt)} prompt tokens are right")
        self._tally.expect(meta["cached_tokens"] < len(prompt), f"{told}: nothing was left to compute")
        if aborted:
            return
        sampling = body["sampling_params"]
        self._tally.expect(len(ids) == sampling["max_new_tokens"], f"{told}: {len(ids)} ids")
        if sampling["temperature"] == 0:
            self._tally.offer(prompt, ids, f"session {session.id}")
        session.history = prompt + ids

    async def _streamed(self, session: Session) -> None:
        body = self._body(session)
        heard = await self._worker.stream(body)
        self._ended(session, body, heard.ids, heard.meta)

    async def _plain(self, session: Session) -> None:
        body = self._body(session)
        answer = await self._worker.call("/generate", body)
        self._ended(session, body, answer["output_ids"], answer["meta_info"])

    async def _scored(self, session: Session) -> None:
        body = self._body(session, return_logprob=True, logprob_start_len=self._dice.choice([-1, 0]))
        heard = await self._worker.stream(body | {"top_logprobs_num": 2})
        scores = heard.meta["output_token_logprobs"]
        self._tally.expect([entry[1] for entry in scores] == heard.ids, f"session {session.id}: logprobs of other ids")
        self._ended(session, body, heard.ids, heard.meta)

    async def _left(self, session: Session) -> None:
        """Hang up in mid-stream. The turn was aborted, or had ended just before: a small turn tells."""
        body = self._body(session, new=self._dice.choice([4, 40]))
        heard = await self._worker.stream(body, leave_after=self._dice.randint(0, 4))
        if heard.finish:
            self._ended(session, body, heard.ids, heard.meta)
            return
        probe = self._body(session, new=1)
        answer = await self._insist(session, probe)
        if answer is None:
            session.over = True
            return
        whole = len(session.history) + len(body["input_ids"]) + body["sampling_params"]["max_new_tokens"]
        if answer["meta_info"]["prompt_tokens"] == whole + len(probe["input_ids"]):
            session.over = True  # it was committed, with ids that nobody heard
        else:
            self._ended(session, probe, answer["output_ids"], answer["meta_info"])

    async def _insist(self, session: Session, body: dict[str, Any]) -> Any:
        """Ask until the turn that was left is over."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            status, answer = await self._worker.ask("/generate", body)
            if status == 200:
                return answer
            if status != 400 or "in flight" not in str(answer):
                break
            await asyncio.sleep(0.05)
        self._tally.odd.append(f"session {session.id} takes no turn after its client left: {answer}")
        return None

    async def _aborted(self, session: Session) -> None:
        rid = uuid.uuid4().hex
        body = self._body(session, new=40, rid=rid)
        begun = asyncio.Event()
        turn = asyncio.create_task(self._worker.stream(body, begun=begun))
        if self._dice.random() < 0.7:
            await asyncio.wait([turn, waiting := asyncio.create_task(begun.wait())], return_when="FIRST_COMPLETED")
            waiting.cancel()
        await self._worker.call("/abort_request", {"rid": rid})
        heard = await turn
        self._ended(session, body, heard.ids, heard.meta)

    async def _running(self, session: Session) -> tuple[dict[str, Any], asyncio.Task[Heard]]:
        """A turn that has begun."""
        body, begun = self._body(session, new=40), asyncio.Event()
        turn = asyncio.create_task(self._worker.stream(body, begun=begun))
        await asyncio.wait([turn, waiting := asyncio.create_task(begun.wait())], return_when="FIRST_COMPLETED")
        waiting.cancel()
        return body, turn

    async def _overlapped(self, session: Session) -> None:
        """A second turn beside a running one is refused, and does the first no harm."""
        body, turn = await self._running(session)
        second = self._body(session, new=1)
        status, answer = await self._worker.ask("/generate", second)
        heard = await turn
        self._ended(session, body, heard.ids, heard.meta)
        if status == 200:  # the first had ended by then
            self._ended(session, second, answer["output_ids"], answer["meta_info"])
        else:
            self._tally.expect(status == 400, f"a second turn beside a running one: {status} {answer}")

    async def _too_long(self, session: Session) -> None:
        body = self._body(session) | {"input_ids": words(self._dice, CAPACITY, CAPACITY + 500)}
        status, answer = await self._worker.ask("/generate", body)
        self._tally.expect(status == 400, f"an over-long turn: {status} {answer}")

    async def _end(self, session: Session) -> None:
        """Close; now and then while a turn runs."""
        if session.over or len(session.history) > CAPACITY - 100 or self._dice.random() < 0.7:
            await self._worker.close(session.id)
            self._tally.done["sessions closed"] += 1
        else:
            body, turn = await self._running(session)
            await self._worker.close(session.id)
            heard = await turn
            self._ended(session, body, heard.ids, heard.meta)
            self._tally.done["sessions closed under way"] += 1
        await self._gone(session)

    async def _wait_for_reaping(self, session: Session) -> None:
        await asyncio.sleep(IDLE_S + 1.0)
        status, answer = await self._worker.ask("/generate", self._body(session, 1))
        self._tally.expect(status == 400, f"a turn of a session that was idle for too long: {status} {answer}")
        self._tally.done["sessions reaped"] += 1
        await self._gone(session)

    async def _gone(self, session: Session) -> None:
        status, answer = await self._worker.ask("/close_session", {"session_id": session.id})
        self._tally.expect(status == 404, f"closing a closed session: {status} {answer}")


class PlainUser:
    """Requests without a session: one or several at once, streamed or not, with and without logprobs."""

    def __init__(self, worker: Native, tally: Tally, dice: random.Random) -> None:
        self._worker, self._tally, self._dice = worker, tally, dice

    async def run(self) -> None:
        manners = [self._one, self._streamed, self._left, self._batch, self._scored, self._text]
        while not self._tally.ending.is_set():
            manner = self._dice.choice(manners)
            self._tally.done[f"requests {manner.__name__.strip('_')}"] += 1
            await manner()

    def _body(self, **options: Any) -> dict[str, Any]:
        sampling = {"temperature": 0, "ignore_eos": True, "max_new_tokens": self._dice.choice([1, 8, 30, 150])}
        return {"input_ids": words(self._dice, 1, 200), "sampling_params": sampling} | options

    def _told(self, prompt: list[int], ids: list[int], meta: dict[str, Any], new: int) -> None:
        self._tally.expect((meta["prompt_tokens"], len(ids)) == (len(prompt), new), f"{len(ids)} ids of {new}: {meta}")
        self._tally.offer(prompt, ids, "a request")

    async def _one(self) -> None:
        body = self._body()
        answer = await self._worker.call("/generate", body)
        self._told(
            body["input_ids"], answer["output_ids"], answer["meta_info"], body["sampling_params"]["max_new_tokens"]
        )

    async def _streamed(self) -> None:
        body = self._body()
        heard = await self._worker.stream(body)
        self._told(body["input_ids"], heard.ids, heard.meta, body["sampling_params"]["max_new_tokens"])

    async def _left(self) -> None:
        await self._worker.stream(self._body(), leave_after=self._dice.randint(0, 5))

    async def _batch(self) -> None:
        body = self._body(input_ids=[words(self._dice, 1, 60) for _ in range(self._dice.randint(1, 5))])
        new = body["sampling_params"]["max_new_tokens"]
        for prompt, answer in zip(body["input_ids"], await self._worker.call("/generate", body), strict=True):
            self._told(prompt, answer["output_ids"], answer["meta_info"], new)

    async def _scored(self) -> None:
        body = self._body(return_logprob=True, logprob_start_len=0, top_logprobs_num=3, return_text_in_logprobs=True)
        meta = (await self._worker.call("/generate", body))["meta_info"]
        ids = [entry[1] for entry in meta["input_token_logprobs"]]
        self._tally.expect(ids == body["input_ids"], f"input logprobs of {ids}, not of {body['input_ids']}")

    async def _text(self) -> None:
        text = "".join(self._dice.choice("abc déf✓ ") for _ in range(60))
        await self._worker.call("/generate", {"text": text, "sampling_params": {"max_new_tokens": 20}})


SAMPLING = {"max_new_tokens": 4}
BAD: list[tuple[str, Any]] = [
    ("/generate", b"{"),
    ("/generate", b"[" * 5000),
    ("/generate", b'{"text": "\xff"}'),
    ("/generate", {}),
    ("/generate", {"input_ids": []}),
    ("/generate", {"input_ids": [1.5]}),
    ("/generate", {"input_ids": [-1]}),
    ("/generate", {"input_ids": [1 << 30]}),
    ("/generate", {"input_ids": [1], "text": "a"}),
    ("/generate", {"input_ids": [1], "sampling_params": {"temperature": -1}}),
    ("/generate", {"input_ids": [1], "sampling_params": {"regex": "a*"}}),
    ("/generate", {"input_ids": [[1], [2]], "session_params": {"id": "nobody"}}),
    ("/generate", {"input_ids": [1], "session_params": {"id": "nobody"}, "sampling_params": SAMPLING}),
    ("/generate", {"input_ids": [7] * 5000, "sampling_params": SAMPLING}),
    ("/open_session", {"streaming": True}),
    ("/open_session", {"capacity_of_str_len": -1, "streaming": True}),
    ("/open_session", {"capacity_of_str_len": 10, "streaming": True, "timeout": 0}),
    ("/close_session", {"session_id": "nobody"}),
    ("/abort_request", {}),
    ("/berth/stop", {}),
    ("/nowhere", {}),
]


class BadUser:
    """Sends what must be refused; orders that find nothing; and asks for what everybody may ask for."""

    def __init__(self, worker: Native, tally: Tally, dice: random.Random) -> None:
        self._worker, self._tally, self._dice = worker, tally, dice

    async def run(self) -> None:
        while not self._tally.ending.is_set():
            path, body = self._dice.choice(BAD)
            status, answer = await self._worker.ask(path, body)
            fine = 400 <= status < 500 and isinstance(answer, dict)
            self._tally.expect(fine, f"POST {path} {str(body)[:80]}: {status} {answer}")
            self._tally.done["bad requests"] += 1
            await self._worker.call("/abort_request", {"rid": "nobody"})
            status, _ = await self._worker.ask("/flush_cache")
            self._tally.expect(status in {200, 409}, f"/flush_cache: {status}")
            await self._worker.metrics()
            await asyncio.sleep(0.05)
