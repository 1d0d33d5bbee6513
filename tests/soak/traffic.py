"""The clients of a soak: mixed turns, impatience, retries, and an exact memory of what they were told."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from checker import Attempt, Outcome

from fleetkit.client import BROKEN, Client, Reply, Streamed, greedy, sampled
from fleetkit.procs import alive
from fleetkit.rig import Rig

SURE_REFUSALS = frozenset({400, 404, 409, 413, 422, 429, 503})
"""Answers by which a turn was not taken on."""
PATIENCE_S = 60.0
"""A request that takes longer is stuck: no fault of the soak lasts so long."""


@dataclass
class Known:
    """A session as its only owner knows it."""

    name: str
    uid: str
    committed: int = 0
    fork_of: tuple[str, int] | None = None
    """The source's uid, and how many turns were taken."""


@dataclass
class Told:
    """What became of one turn over all requests with its key."""

    session: Known
    body: Mapping[str, Any]
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    sent_at: float = field(default_factory=time.monotonic)
    outcome: Outcome | None = None
    """None: nothing was ever said; the first word is from a request that may have been taken on."""
    ids: tuple[int, ...] = ()
    seen: tuple[int, ...] = ()
    turn: str = ""
    head: str = ""
    position: int | None = None

    def hear(self, outcome: Outcome, ids: list[int] | None = None, facts: Mapping[str, Any] | None = None) -> None:
        """Take one request's answer. A refusal says nothing about an earlier request that may still run."""
        if ids is not None and len(ids) > len(self.seen):
            self.seen = tuple(ids)
        if outcome == "refused" and self.outcome not in {None, "refused"}:
            return
        self.outcome = outcome
        if facts is not None and outcome == "committed":
            self.ids = tuple(ids or ())
            self.turn, self.head, self.position = facts["turn"], facts["head"], facts["turn_index"]

    def attempt(self) -> Attempt:
        return Attempt(
            session=self.session.uid,
            input_ids=tuple(self.body["input_ids"]),
            outcome=self.outcome or "unknown",
            output_ids=self.ids,
            seen_ids=self.seen,
            turn=self.turn,
            head=self.head,
            position=self.position,
            sent_at=self.sent_at,
            ended_at=time.monotonic(),
        )


class Traffic:
    """So many clients on one fleet. `attempts` and `sessions` are what the checker needs; `odd` what should not be."""

    def __init__(self, rig: Rig, client: Client, seed: int) -> None:
        self._rig = rig
        self._client = client
        self._seed = seed
        self._number = 0
        self.attempts: list[Attempt] = []
        self.bodies: dict[tuple[int, ...], Mapping[str, Any]] = {}
        self.by_number: dict[tuple[int, ...], tuple[int, ...]] = {}
        self.sessions: dict[str, Known] = {}
        self.outcomes: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.odd: list[str] = []
        self.ending = asyncio.Event()
        """Set it and every client ends after what it is doing: nothing is left half told."""

    async def run(self, clients: int) -> None:
        """Run that many clients until `ending`."""
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(self._one(random.Random(f"client-{self._seed}-{number}")))

    def gateway(self, dice: random.Random) -> Client:
        """Some gateway that lives, as far as can be seen from outside."""
        living = [gateway for gateway in self._rig.gateways if alive(gateway.pid)]
        return self._client.at(dice.choice(living or self._rig.gateways).url)

    async def _one(self, dice: random.Random) -> None:
        mine: list[Known] = []
        while not self.ending.is_set():
            if len(mine) < 3:
                if (made := await self._open(dice)) is not None:
                    mine.append(made)
                continue
            session = dice.choice(mine)
            action = dice.choices(["turn", "race", "fork", "delete", "read"], [80, 5, 4, 3, 8])[0]
            if action == "turn":
                await self._turn(dice, session)
            elif action == "race":
                await asyncio.gather(*(self._turn(dice, session) for _ in range(3)))
            elif action == "fork" and session.committed:
                if (made := await self._fork(dice, session)) is not None:
                    mine[dice.randrange(len(mine))] = made
            elif action == "delete":
                mine.remove(session)
                if (made := await self._delete(dice, session)) is not None:
                    mine.append(made)
            else:
                await self._call(dice, "GET", f"/v1/sessions/default/{session.name}/history")

    async def _call(self, dice: random.Random, method: str, path: str, body: Any = None) -> Reply | None:
        """One request to some gateway; None where nobody answered."""
        try:
            reply = await self.gateway(dice).call(method, path, body)
        except BROKEN:
            await asyncio.sleep(0.2)
            return None
        if reply.status >= 400:
            self.refusals[f"{reply.status} {reply.type}"] += 1
        if reply.status >= 500 and reply.status != 503:
            self.odd.append(f"{method} {path}: {reply.status} {reply.body}")
        return reply

    async def _open(self, dice: random.Random, **fields: Any) -> Known | None:
        reply = await self._call(dice, "POST", "/v1/sessions", fields)
        if reply is None or reply.status != 201:
            await asyncio.sleep(0.2)
            return None
        made = Known(reply.body["name"], reply.body["uid"], reply.body["turns"])
        self.sessions[made.uid] = made
        return made

    async def _fork(self, dice: random.Random, source: Known) -> Known | None:
        taken = dice.randint(0, source.committed)
        made = await self._open(dice, **{"from": {"session": source.name, "turn": taken}})
        if made is not None:
            made.fork_of = (source.uid, taken)
        return made

    async def _delete(self, dice: random.Random, session: Known) -> Known | None:
        """Delete, and make the name again: nothing of the old one may show in the new."""
        self.sessions.pop(session.uid)
        for _ in range(20):
            reply = await self._call(dice, "DELETE", f"/v1/sessions/default/{session.name}")
            if reply is not None and reply.status in {200, 202, 204, 404}:
                break
            await asyncio.sleep(0.2)
        return await self._open(dice, name=session.name)

    def _body(self, dice: random.Random) -> Mapping[str, Any]:
        """A turn that nobody else sends: its first ids are its number."""
        self._number += 1
        unique = [self._number >> shift & 0xFF for shift in (16, 8, 0)]
        size = dice.choices([4, 16, 200], [50, 45, 5])[0]
        ids = unique + [dice.randrange(256) for _ in range(size)]
        new = dice.choice([1, 4, 12, 40])
        made = greedy(ids, new) if dice.random() < 0.5 else sampled(ids, new, dice.randrange(1 << 31))
        if dice.random() < 0.1:
            made["on_worker_failure"] = "abort"
        self.bodies[tuple(ids)] = made
        self.by_number[tuple(unique)] = tuple(ids)
        return made

    async def _turn(self, dice: random.Random, session: Known) -> None:
        told = Told(session, self._body(dice))
        manner = dice.choices(["stream", "plain", "leave", "abort", "stop"], [50, 30, 8, 6, 6])[0]
        for _ in range(dice.choice([1, 6, 6, 6])):
            began = time.monotonic()
            await self._request(dice, told, manner)
            if time.monotonic() - began > PATIENCE_S:
                self.odd.append(f"a request took {time.monotonic() - began:.0f} s: turn {told.turn} of {session.name}")
            if told.outcome in {"committed", "aborted"} or manner == "leave":
                break
            if told.outcome == "unknown" and dice.random() < 0.15:
                await self._give_up(dice, told)
                break
            await asyncio.sleep(dice.uniform(0.05, 0.8))
        if told.outcome == "committed":
            session.committed = max(session.committed, (told.position or 0) + 1)
        self.outcomes[told.outcome or "unknown"] += 1
        self.attempts.append(told.attempt())

    async def _request(self, dice: random.Random, told: Told, manner: str) -> None:
        if manner == "plain":
            await self._plain(dice, told)
        else:
            await self._streamed(dice, told, manner)

    async def _plain(self, dice: random.Random, told: Told) -> None:
        path = f"/v1/sessions/default/{told.session.name}/turns"
        try:
            reply = await self.gateway(dice).call("POST", path, told.body, {"Idempotency-Key": told.key})
        except BROKEN:
            told.hear("unknown")
            return
        self._judge(told, reply)

    def _judge(self, told: Told, reply: Reply) -> None:
        if reply.status in {200, 201, 202}:
            state = reply.body["state"]
            told.turn = reply.body["turn"]
            told.hear("unknown" if state == "running" else state, reply.body.get("output_ids") or [], reply.body)
        elif reply.status in SURE_REFUSALS:
            self.refusals[f"{reply.status} {reply.type}"] += 1
            told.hear("refused")
        else:
            self.odd.append(f"a turn was answered with {reply.status} {reply.body}")
            told.hear("unknown")

    async def _streamed(self, dice: random.Random, told: Told, manner: str) -> None:
        seen, patience = Streamed(), dice.randint(0, 10)
        acted = False
        stream = self.gateway(dice).stream(told.session.name, told.body, seen, idempotency_key=told.key)
        try:
            async for _ in stream:
                told.turn = seen.turn
                if len(seen.ids) >= patience and not acted:
                    acted = True
                    if manner == "leave":
                        break
                    if manner in {"abort", "stop"}:
                        where = f"/v1/sessions/default/{told.session.name}/turns/{seen.turn}/{manner}"
                        await self._call(dice, "POST", where)
        finally:
            await stream.aclose()
        if seen.reply is not None:
            self._judge(told, seen.reply)
        elif seen.terminal is None:
            told.hear("unknown", seen.ids)
        else:
            told.hear(seen.outcome, seen.ids, seen.terminal.data)  # type: ignore[arg-type]

    async def _give_up(self, dice: random.Random, told: Told) -> None:
        """Abort it from wherever: when that is acknowledged, the turn must never show."""
        if told.turn:
            where = f"/v1/sessions/default/{told.session.name}/turns/{told.turn}"
            reply = await self._call(dice, "POST", f"{where}/abort")
            if reply is not None and reply.status == 200 and reply.body.get("state") == "aborted":
                told.hear("aborted")
