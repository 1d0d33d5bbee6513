"""A client of the public HTTP that believes nothing: each answer is checked against the contract as it is read."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field, replace
from typing import IO, Any

import aiohttp

from fleetkit.sse import Event, ProtocolError, Reader, Transcript

BROKEN = (aiohttp.ClientError, ConnectionError, TimeoutError)
"""What a client sees when the other end, or the way to it, is gone."""


@dataclass(frozen=True)
class Reply:
    """One plain HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def type(self) -> str:
        """The problem's type; "" when the answer is none."""
        return str(self.body.get("type", "")) if isinstance(self.body, dict) else ""


@dataclass
class Streamed(Transcript):
    """A turn's stream; when it was refused before it began, `reply` tells why."""

    status: int = 0
    reply: Reply | None = None

    @property
    def outcome(self) -> str:
        return "refused" if self.reply is not None else super().outcome

    @property
    def end(self) -> dict[str, Any]:
        """The terminal event's data; ProtocolError when there was none."""
        if self.terminal is None:
            raise ProtocolError(f"no terminal event: {self.reply or [event.name for event in self.events]}")
        return self.terminal.data


@dataclass
class Client:
    """Speaks to one gateway. `http` is shared; a gateway's death costs only what is in flight."""

    http: aiohttp.ClientSession
    base: str
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 60.0
    namespace: str = "default"

    def at(self, base: str) -> Client:
        """The same client at another gateway."""
        return replace(self, base=base)

    def path(self, name: str) -> str:
        """A session's path."""
        return f"/v1/sessions/{self.namespace}/{name}"

    async def call(
        self,
        method: str,
        path: str,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        data: bytes | IO[bytes] | None = None,
    ) -> Reply:
        """One request. A refusal must be problem+json whose status is the answer's."""
        timeout = aiohttp.ClientTimeout(total=self.timeout_s)
        everything = {**self.headers, **(headers or {})}
        async with self.http.request(
            method, self.base + path, json=json, data=data, headers=everything, timeout=timeout
        ) as answer:
            body: Any = await answer.read()
            if "json" in answer.content_type:
                body = await answer.json(content_type=None)
            problem = answer.content_type == "application/problem+json" and body.get("status") == answer.status
            if answer.status >= 400 and path.startswith("/v1/sessions") and not problem:
                raise ProtocolError(f"{method} {path}: {answer.status} {answer.content_type} {body!r}")
            return Reply(answer.status, dict(answer.headers), body)

    async def open(self, name: str | None = None, **fields: Any) -> dict[str, Any]:
        """Make a session and return its view."""
        body = {"namespace": self.namespace, **({"name": name} if name else {}), **fields}
        reply = await self.call("POST", "/v1/sessions", body)
        if reply.status != 201:
            raise ProtocolError(f"POST /v1/sessions: {reply}")
        view: dict[str, Any] = reply.body
        return view

    async def session(self, name: str) -> dict[str, Any]:
        """The session's view; ProtocolError when it has none."""
        reply = await self.call("GET", self.path(name))
        if reply.status != 200:
            raise ProtocolError(f"GET session {name}: {reply}")
        view: dict[str, Any] = reply.body
        return view

    async def history(self, name: str) -> dict[str, Any]:
        """The session's committed turns."""
        reply = await self.call("GET", f"{self.path(name)}/history")
        if reply.status != 200:
            raise ProtocolError(f"GET history of {name}: {reply}")
        body: dict[str, Any] = reply.body
        return body

    async def turn_view(self, name: str, turn: str) -> Reply:
        return await self.call("GET", f"{self.path(name)}/turns/{turn}")

    async def say(self, name: str, body: Mapping[str, Any], **headers: str) -> Reply:
        """A turn without a stream."""
        return await self.call("POST", f"{self.path(name)}/turns", body, _dashed(headers))

    async def stream(
        self, name: str, body: Mapping[str, Any], into: Streamed, **headers: str
    ) -> AsyncGenerator[Event, None]:
        """Stream a turn: each event is checked, kept in `into` and yielded. A broken connection ends the stream."""
        timeout = aiohttp.ClientTimeout(total=None, sock_read=self.timeout_s)
        url = f"{self.base}{self.path(name)}/turns"
        reader = Reader()
        with contextlib.suppress(*BROKEN):
            async with self.http.post(
                url, json={**body, "stream": True}, headers={**self.headers, **_dashed(headers)}, timeout=timeout
            ) as answer:
                into.status = answer.status
                if answer.status != 200:
                    into.reply = Reply(answer.status, dict(answer.headers), await answer.json(content_type=None))
                    return
                if answer.content_type != "text/event-stream":
                    raise ProtocolError(f"a stream of {answer.content_type}")
                async for data in answer.content.iter_any():
                    for event in reader.feed(data, time.monotonic()):
                        into.add(event)
                        yield event

    async def turn(self, name: str, body: Mapping[str, Any], **headers: str) -> Streamed:
        """Stream a turn to its end."""
        into = Streamed()
        async for _ in self.stream(name, body, into, **headers):
            pass
        return into


def _dashed(headers: Mapping[str, str]) -> dict[str, str]:
    """Keyword names to header names: idempotency_key -> Idempotency-Key."""
    return {name.replace("_", "-").title(): value for name, value in headers.items()}


def greedy(ids: list[int], new: int, **more: Any) -> dict[str, Any]:
    """A greedy turn of exactly `new` output ids."""
    return {"input_ids": ids, "sampling": {"max_new_tokens": new, "temperature": 0, "ignore_eos": True, **more}}


def sampled(ids: list[int], new: int, seed: int, **more: Any) -> dict[str, Any]:
    """A sampled turn of exactly `new` output ids."""
    chosen = {"max_new_tokens": new, "temperature": 0.9, "top_p": 0.95, "seed": seed, "ignore_eos": True, **more}
    return {"input_ids": ids, "sampling": chosen}
