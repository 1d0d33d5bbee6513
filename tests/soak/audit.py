"""After the storm: read everything back, from every side, and put it before the checker."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Any

from checker import Entry, History, Violation, check
from traffic import Known, Traffic

from fleetkit.client import Client, greedy
from fleetkit.rig import Rig, Worker
from fleetkit.story import insist

REPLAYED_SESSIONS = 6
HELD = ("available", "evictable", "protected", "session_held", "uncached")


class Audit:
    """Reads the fleet at rest. `histories` and `replayed` tell what was looked at."""

    def __init__(self, rig: Rig, client: Client, traffic: Traffic) -> None:
        self._rig = rig
        self._client = client
        self._traffic = traffic
        self.histories: list[History] = []
        self.replayed = 0

    async def run(self) -> list[Violation]:
        """Return every violation found."""
        turns: dict[str, set[str]] = {}
        for attempt in self._traffic.attempts:
            if attempt.turn:
                turns.setdefault(attempt.session, set()).add(attempt.turn)
        found: list[Violation] = []
        for known in self._traffic.sessions.values():
            self.histories.append(await self._read(known, sorted(turns.get(known.uid, set()))))
        found += check(self._traffic.attempts, self.histories)
        found += await self._replay()
        found += await self._probe()
        for worker in self._rig.workers:
            found += await self._accounting(worker)
        return found

    async def _read(self, known: Known, turns: Sequence[str]) -> History:
        # A turn whose gateway died may still be in flight by its lease: a history is read at rest.
        view: dict[str, Any] = {}
        for _ in range(100):
            view = await self._client.session(known.name)
            if view["state"] != "running":
                break
            await asyncio.sleep(0.1)
        listed = await self._client.history(known.name)
        outcomes = {turn: str((await self._client.turn_view(known.name, turn)).body.get("state")) for turn in turns}
        entries = tuple(self._entry(turn) for turn in listed["turns"])
        return History(known.uid, view["head"], view["turns"], view["tokens"], entries, known.fork_of, outcomes)

    def _entry(self, turn: Mapping[str, Any]) -> Entry:
        """A fork may not know where its source's inputs ended; every input that was sent begins with its own number."""
        ids = tuple(turn["input_ids"] + turn["output_ids"])
        sent = self._traffic.by_number.get(ids[:3], ())
        cut = len(sent) if not turn.get("turn") and ids[: len(sent)] == sent else len(turn["input_ids"])
        return Entry(ids[:cut], ids[cut:], turn["head"], turn.get("turn") or "")

    async def _replay(self) -> list[Violation]:
        """Some sessions again on the calm fleet: in fp32 each token comes out the same, whatever its turn survived."""
        found = []
        whole = [history for history in self.histories if history.entries]
        for history in random.Random(0).sample(whole, min(REPLAYED_SESSIONS, len(whole))):
            name = (await self._client.open())["name"]
            for position, entry in enumerate(history.entries):
                if entry.input_ids not in self._traffic.bodies:
                    break  # a foreign turn: the checker has said so
                sampling = dict(self._traffic.bodies[entry.input_ids]["sampling"])
                sampling["max_new_tokens"] = max(1, len(entry.output_ids))
                body = {"input_ids": list(entry.input_ids), "sampling": sampling}
                reply = await insist(self._client, name, body)
                self.replayed += 1
                if tuple(reply.body["output_ids"])[: len(entry.output_ids)] != entry.output_ids:
                    found.append(Violation(history.session, "replay", f"turn {position} comes out otherwise"))
                if reply.body["head"] != entry.head:
                    break
        return found

    async def _probe(self) -> list[Violation]:
        """Every session takes another turn."""
        found = []
        for known in self._traffic.sessions.values():
            reply = await insist(self._client, known.name, greedy([1, 2, 3], 2))
            if reply.status != 200 or reply.body["state"] != "committed":
                found.append(Violation(known.uid, "stuck", f"the last turn got {reply.status} {reply.body}"))
        return found

    async def _accounting(self, worker: Worker) -> list[Violation]:
        """An idle worker's KV adds up, and nothing of it belongs to a request."""
        info: dict[str, Any] = {}
        for _ in range(50):
            async with self._client.http.get(
                worker.url + "/get_server_info", headers=self._rig.worker_headers()
            ) as answer:
                info = await answer.json()
            if info["memory"]["uncached"] == 0 and info["berth"]["running"] == 0:
                break
            await asyncio.sleep(0.1)
        memory = info["memory"]
        found = []
        if sum(memory[part] for part in HELD) != memory["total"]:
            found.append(Violation(worker.id, "accounting", f"{memory} does not add up"))
        if memory["uncached"] or info["berth"]["running"] or info["berth"]["queued"]:
            found.append(Violation(worker.id, "accounting", f"not idle: {info['berth']} {memory}"))
        rows = memory["rows"]
        if rows["free"] + info["berth"]["resident"] != rows["total"]:
            found.append(Violation(worker.id, "accounting", f"{rows} with {info['berth']['resident']} resident"))
        return found
