"""A client of a worker that keeps its own books: what it said, what it heard, and so what must be true next."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp

from berth_worker.builtin.tokenizer import BOS
from workerkit.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterable

GREEDY = {"temperature": 0, "ignore_eos": True}
KINDS = ("available", "evictable", "protected", "session_held", "uncached")


@dataclass(frozen=True)
class Said:
    """A request's whole prompt (history and new ids) and its answer."""

    prompt: list[int]
    body: dict[str, Any]

    @property
    def output(self) -> list[int]:
        return self.body["output_ids"]

    @property
    def ids(self) -> list[int]:
        return self.prompt + self.output

    @property
    def meta(self) -> dict[str, Any]:
        return self.body["meta_info"]

    @property
    def cached(self) -> int:
        return self.meta["cached_tokens"]

    @property
    def finish(self) -> str | None:
        """Why it ended; None while it goes on."""
        reason = self.meta["finish_reason"]
        return reason and reason["type"]

    def logprobs(self, kind: str) -> list[tuple[float | None, int]] | None:
        """Return the (logprob, id) pairs of `kind` ("input", "output"); None if they were not asked for."""
        entries = self.meta.get(f"{kind}_token_logprobs")
        return None if entries is None else [(logprob, token) for logprob, token, _ in entries]


class Stream:
    """An open stream: bodies as they come, until the worker's last word."""

    def __init__(self, prompt: list[int], response: aiohttp.ClientResponse) -> None:
        self._prompt, self._response = prompt, response

    async def __aiter__(self) -> AsyncIterator[Said]:
        async for line in self._response.content:
            if line.startswith(b"data: {"):
                yield Said(self._prompt, json.loads(line[6:]))

    async def until(self, tokens: int) -> Said:
        """Return the first answer with so many tokens."""
        async for said in self:
            if len(said.output) >= tokens:
                return said
        raise AssertionError(f"the stream ended before {tokens} tokens")

    async def rest(self) -> Said:
        """Return the last answer."""
        answers = [said async for said in self]
        return answers[-1]


@dataclass
class Worker:
    """A worker's HTTP side."""

    url: str
    http: aiohttp.ClientSession
    dice: random.Random
    """Where all prompts come from."""
    sessions: list[Conversation] = field(default_factory=list)
    """Opened here and not yet closed."""

    def words(self, count: int) -> list[int]:
        """Return `count` ids that nobody sent before. None of them is special."""
        return [self.dice.randrange(BOS) for _ in range(count)]

    async def post(self, path: str, **body: Any) -> tuple[int, Any]:
        async with self.http.post(self.url + path, json=body) as response:
            return response.status, await response.json()

    async def ok(self, path: str, **body: Any) -> Any:
        status, answer = await self.post(path, **body)
        assert status == 200, answer
        return answer

    def body(self, ids: list[int], new: int, options: dict[str, Any]) -> dict[str, Any]:
        """Return a greedy request for exactly `new` tokens."""
        return {"input_ids": ids, "sampling_params": GREEDY | {"max_new_tokens": new}, **options}

    async def generate(self, ids: list[int], new: int = 8, **options: Any) -> Said:
        """Send a request without a session."""
        return Said(ids, await self.ok("/generate", **self.body(ids, new, options)))

    @contextlib.asynccontextmanager
    async def stream(self, ids: list[int], new: int, *, history: Iterable[int] = (), **options: Any):
        """Send a request and read it as it comes; it has been accepted. Leaving early is a client that goes away."""
        body = self.body(ids, new, options) | {"stream": True}
        async with self.http.post(self.url + "/generate", json=body) as response:
            assert response.status == 200, await response.text()
            yield Stream([*history, *ids], response)

    async def open(self, capacity: int = 100_000, **options: Any) -> Conversation:
        """Open a session."""
        terms = {"capacity_of_str_len": capacity, "streaming": True, **options}
        self.sessions.append(Conversation(self, await self.ok("/open_session", **terms), terms))
        return self.sessions[-1]

    async def close_all(self) -> None:
        """Close every session; nothing is held then."""
        for session in list(self.sessions):
            await session.close()
        await self.holds_nothing()
        await self.flush()

    async def info(self) -> dict[str, Any]:
        async with self.http.get(self.url + "/get_server_info") as response:
            return await response.json()

    async def counter(self, name: str, **labels: str) -> float:
        """Return a counter of /metrics, summed over what its labels leave open."""
        async with self.http.get(self.url + "/metrics") as response:
            lines = (await response.text()).splitlines()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = [
            line for line in lines if line.startswith((f"berth_worker_{name}_total ", f"berth_worker_{name}_total{{"))
        ]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(label in line for label in wanted))

    async def memory(self) -> dict[str, Any]:
        """Return the books. They balance at any moment."""
        memory = (await self.info())["memory"]
        assert sum(memory[kind] for kind in KINDS) == memory["total"], memory
        assert min(memory[kind] for kind in KINDS) >= 0, memory
        return memory

    async def idle(self) -> dict[str, Any]:
        """Wait until nothing is queued or running; return the books, in which nothing is lent any more."""

        async def quiet() -> bool:
            berth = (await self.info())["berth"]
            return berth["running"] == berth["queued"] == 0

        await until(quiet)
        memory = await self.memory()
        assert memory["uncached"] == 0, memory
        return memory

    async def holds_nothing(self) -> None:
        """Assert that no request and no session has any KV; prefixes may be known."""
        memory = await self.idle()
        assert (memory["session_held"], memory["protected"]) == (0, 0), memory
        assert memory["rows"]["free"] == memory["rows"]["total"], memory

    async def flush(self) -> None:
        """Wipe all KV, and see that all of it came back."""
        await self.idle()
        await self.ok("/flush_cache")
        memory = await self.memory()
        assert memory["available"] == memory["total"], memory
        assert memory["rows"]["free"] == memory["rows"]["total"], memory


@dataclass
class Conversation:
    """A session as its client knows it: the history of its good turns, and nothing of those that came to nothing."""

    worker: Worker
    id: str
    terms: dict[str, Any] = field(default_factory=dict)
    """On which it was opened."""
    turns: list[Said] = field(default_factory=list)

    @property
    def history(self) -> list[int]:
        return self.turns[-1].ids if self.turns else []

    @property
    def params(self) -> dict[str, Any]:
        return {"session_params": {"id": self.id}}

    async def say(self, ids: list[int], new: int = 8, **options: Any) -> Said:
        """Take a turn that must succeed. It builds on exactly the good turns before it."""
        said = await self.worker.generate(ids, new, **self.params, **options)
        return self.heard(ids, new, said)

    def heard(self, ids: list[int], new: int, said: Said) -> Said:
        """Take a good answer to `ids` into the history."""
        said = Said(self.history + ids, said.body)
        assert said.finish == "length", said.meta
        assert said.meta["prompt_tokens"] == len(said.prompt), f"{said.meta}, history and input: {len(said.prompt)}"
        assert len(said.output) == new
        self.turns.append(said)
        return said

    async def refuses(self, ids: list[int], new: int = 8, *, says: str, **options: Any) -> None:
        """Send a turn that must be refused, for a reason that `says` so."""
        session = self.params["session_params"] | options.pop("session_params", {})
        body = self.worker.body(ids, new, options | {"session_params": session})
        status, answer = await self.worker.post("/generate", **body)
        assert status == 400, answer
        assert says in answer["error"]["message"], answer

    def stream(self, ids: list[int], new: int, **options: Any):
        """Begin a turn and read it as it comes."""
        return self.worker.stream(ids, new, history=self.history, **self.params, **options)

    async def close(self) -> None:
        await self.worker.ok("/close_session", session_id=self.id)
        self.worker.sessions.remove(self)

    async def insist(self, ids: list[int], new: int = 8) -> Said:
        """Take a turn as soon as the one that was given up has ended; until then it is refused as in flight."""

        async def taken() -> bool:
            body = self.worker.body(ids, new, self.params)
            status, answer = await self.worker.post("/generate", **body)
            if status == 200:
                self.heard(ids, new, Said(ids, answer))
            else:
                assert "has a turn in flight" in answer["error"]["message"], answer
            return status == 200

        await until(taken)
        return self.turns[-1]


async def together(*awaitables: Any) -> list[Any]:
    """Await all at once; the first failure ends it."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each) for each in awaitables]
    return [task.result() for task in tasks]
