"""A worker without a model: it speaks the wire protocol and says tokens that are a pure function of what it was told.

For the gateway's own tests and benches: what the gateway costs and what it does with a worker that misbehaves, without
an engine in between. Every fault of a real worker that a gateway can see is scripted by `faults`.

As a process: `python tests/bench/stub_worker.py --port 0 [--step-ms 0] [--slots 64]`; it prints a worker's ready line.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import signal
import sys
import uuid
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import numpy as np
from aiohttp import web

from berth_api import heads, wire

VOCAB, BOS, EOS = 300, 256, 257
SPECIALS = ["<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
TEMPLATE = (
    "{{- bos_token -}}{%- for m in messages -%}{{- '<|' ~ m['role'] ~ '|>' ~ m['content'] ~ '<|end|>' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def letters() -> list[str]:
    """The printable stand-in of every byte, as byte-level tokenizers write it."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    other = [b for b in range(256) if b not in plain]
    table = {b: chr(b) for b in plain} | {b: chr(256 + n) for n, b in enumerate(other)}
    return [table[b] for b in range(256)]


def tokenizer_files(template: str | None = TEMPLATE) -> dict[str, bytes]:
    """A byte-level tokenizer: id = byte, then the specials."""
    tokens = [
        {"id": 256 + n, "content": s, "special": True, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False}
        for n, s in enumerate(SPECIALS)
    ]  # fmt: skip
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens, "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<|bos|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<|bos|>": {"id": "<|bos|>", "ids": [BOS], "tokens": ["<|bos|>"]}},
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {s: b for b, s in enumerate(letters())}, "merges": []},
    }  # fmt: skip
    config = {"bos_token": "<|bos|>", "eos_token": "<|end|>"} | ({"chat_template": template} if template else {})
    return {"tokenizer.json": json.dumps(tokenizer).encode(), "tokenizer_config.json": json.dumps(config).encode()}


def next_token(history: bytes, seed: int) -> int:
    """A lower-case letter drawn from (all ids before it, seed); the position is in the length of the ids."""
    digest = hashlib.sha256(history + seed.to_bytes(8, "little")).digest()
    return 97 + digest[0] % 26


def pack(ids: list[int]) -> bytes:
    return np.asarray(ids, dtype="<i4").tobytes()


@dataclass
class Faults:
    """Each applies to the next turn(s) and counts down; `at` is an output id's number."""

    script: list[str] = field(default_factory=list)
    """One entry a POST, taken from the front: "" is none. See `StubWorker.turn`."""

    def take(self) -> str:
        return self.script.pop(0) if self.script else ""


@dataclass
class Slot:
    """What is held for a session: its chain of heads with the ids before each."""

    turns: dict[str, bytes] = field(default_factory=lambda: {"": b""})
    seen: tuple[int, int] = (0, 0)


@dataclass
class StubWorker:
    """One worker. `step_s` is the pause before each token."""

    id: str = field(default_factory=lambda: f"pod-{uuid.uuid4().hex[:6]}.{uuid.uuid4()}")
    slots: int = 8
    step_s: float = 0.0
    token: str | None = None
    fingerprint: str = "stub-1"
    template: str | None = TEMPLATE
    faults: Faults = field(default_factory=Faults)
    healthy: bool = True
    gate: Callable[[wire.TurnRequest, int], None] | None = None
    """Called before each token: a test's place to look or to act."""
    seen: list[wire.TurnRequest] = field(default_factory=list)
    stops: set[tuple[str, int, int]] = field(default_factory=set)
    released: list[wire.ReleaseRequest] = field(default_factory=list)
    state: dict[str, Slot] = field(default_factory=lambda: defaultdict(Slot))
    running: dict[tuple[str, int, int], asyncio.Event] = field(default_factory=dict)
    aborted: list[str] = field(default_factory=list)
    frozen: asyncio.Event = field(default_factory=asyncio.Event)

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self.guard], client_max_size=64 << 20)
        app.add_routes(
            [
                web.post("/generate", self.generate),
                web.post("/berth/stop", self.stop),
                web.post("/berth/release", self.release),
                web.get("/berth/model", self.model),
                web.get("/berth/model/files/{name}", self.file),
                web.get("/get_server_info", self.info),
                web.get("/health", self.health),
            ]
        )
        return app

    @web.middleware
    async def guard(self, request, handler):
        if request.path != "/health":
            if self.token is not None and request.headers.get("Authorization") != f"Bearer {self.token}":
                return refusal(401, "unauthorized", "token")
            if request.headers.get(wire.WORKER_HEADER, self.id) != self.id:
                return refusal(421, "wrong_worker", f"this is {self.id}")
            if request.headers.get(wire.VERSION_HEADER) != str(wire.WIRE_VERSION):
                return refusal(400, "invalid_request", "wire version")
        return await handler(request)

    @property
    def info_of_model(self) -> wire.ModelInfo:
        files = {name: hashlib.sha256(data).hexdigest() for name, data in tokenizer_files(self.template).items()}
        return wire.ModelInfo("stub", self.fingerprint, VOCAB, 4096, BOS, [EOS], files)

    async def model(self, request):
        return reply(self.info_of_model)

    async def file(self, request):
        return web.Response(body=tokenizer_files(self.template)[request.match_info["name"]])

    async def info(self, request):
        berth = wire.WorkerInfo(self.id, wire.WIRE_VERSION, self.info_of_model, self.slots, 0, 0, 0)
        return reply({"memory": {}, "berth": berth})

    async def health(self, request):
        if not self.healthy:
            await asyncio.sleep(3600)
        return web.Response(text="ok")

    async def stop(self, request):
        order = msgspec.json.decode(await request.read(), type=wire.StopRequest)
        key = (order.uid, order.epoch, order.attempt)
        found = key in self.running
        if found:
            self.stops.add(key)
        return reply({"found": found})

    async def release(self, request):
        order = msgspec.json.decode(await request.read(), type=wire.ReleaseRequest)
        self.released.append(order)
        self.state.pop(order.uid, None)
        return reply({"released": True})

    async def generate(self, request):
        turn = msgspec.msgpack.decode(await request.read(), type=wire.TurnRequest)
        self.seen.append(turn)
        fault = self.faults.take()
        refused = self.admit(turn, fault)
        if refused is not None:
            return refused
        if fault == "hang":
            await self.frozen.wait()
        key = (turn.uid, turn.epoch, turn.attempt)
        for other, ended in self.running.items():
            if other[0] == turn.uid:
                ended.set()
        self.running[key] = asyncio.Event()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            await self.run(turn, fault, response, request, self.running[key])
        except (asyncio.CancelledError, ConnectionError):
            self.aborted.append(turn.turn)
            raise
        finally:
            self.running.pop(key, None)
        return response

    def admit(self, turn: wire.TurnRequest, fault: str):
        """Return the refusal, or None; takes over the history it was given."""
        status, _, kind = fault.partition(" ")
        if status.isdigit():
            return refusal(int(status), kind or "internal_error", f"scripted {fault}")
        if fault == "drop":
            return web.Response(status=500, body=b"<html>not an error object")
        slot = self.state[turn.uid]
        pair = (turn.epoch, turn.attempt)
        if pair < slot.seen:
            return refusal(409, "stale", "an older attempt", seen=list(slot.seen))
        if pair == slot.seen:
            return refusal(409, "duplicate", "seen")
        if turn.fingerprint != self.fingerprint:
            return refusal(409, "conflict", "another model")
        if turn.history is None and turn.parent not in slot.turns:
            return refusal(409, "history_required", "history", have=list(slot.turns)[::-1])
        slot.seen = pair
        if turn.history is not None:
            if turn.history_base not in slot.turns:
                return refusal(409, "history_required", "base", have=list(slot.turns)[::-1])
            head, ids = turn.history_base, slot.turns[turn.history_base]
            for one in turn.history:
                head, ids = heads.advance(head, one), ids + one
                slot.turns[head] = ids
            if head != turn.parent:
                return refusal(400, "invalid_request", "the history does not lead to parent", field="history")
        return None

    async def run(self, turn, fault, response, request, superseded) -> None:
        """Stream one turn.

        Faults: `die@N` drops the connection when N ids of this attempt were sent (0: before the start event),
        `die@start` after it, `die@last` after the last id, `freeze@N` goes silent, `garbage@N`, `wrong_head`,
        `abort REASON`, `die@finish` right behind the finish.
        """
        sampling = turn.sampling
        history = self.state[turn.uid].turns[turn.parent]
        said = list(np.frombuffer(turn.resume_ids, dtype="<i4"))
        slot = self.state[turn.uid]

        async def put(event) -> None:
            await response.write(b"data: " + msgspec.json.encode(event) + b"\n\n")

        def die() -> None:
            request.transport.abort()
            raise ConnectionResetError

        if fault == "die@0":
            die()
        prompt = len(history + turn.input_ids) // 4
        await put(wire.Started(prompt, len(history) // 4 if turn.history is None else 0))
        if fault == "die@start":
            die()
        if fault.startswith("abort "):
            await put(wire.Aborted(fault.removeprefix("abort "), "scripted"))
            return
        finish = wire.FinishReason("length")
        sent = 0
        while len(said) < sampling.max_new_tokens:
            if (turn.uid, turn.epoch, turn.attempt) in self.stops:
                finish = wire.FinishReason("stop")
                break
            kind, _, at = fault.partition("@")
            if at == str(sent):
                if kind == "die":
                    die()
                if kind == "freeze":
                    self.healthy = False
                    await self.frozen.wait()
                if kind == "garbage":
                    await response.write(b"data: {not json\n\n")
                    await self.frozen.wait()
            if superseded.is_set():
                await put(wire.Aborted("superseded", "a newer attempt"))
                return
            if self.gate is not None:
                self.gate(turn, len(said))
            if self.step_s:
                await asyncio.sleep(self.step_s)
            token = next_token(history + turn.input_ids + pack(said), turn.seed)
            said.append(token)
            sent += 1
            logprobs = [wire.TokenLogprob(-0.5, token, [(-0.5, token)] * turn.top_logprobs)] if turn.logprobs else None
            await put(wire.Tokens([int(token)], chr(token), logprobs))
            if sampling.stops and chr(token) in sampling.stops:
                finish = wire.FinishReason("stop", chr(token))
                break
            if token in (sampling.stop_token_ids or ()):
                finish = wire.FinishReason("stop", int(token))
                break
        if fault == "die@last":
            die()
        ids = turn.input_ids + pack(said)
        head = heads.advance(turn.parent, ids)
        slot.turns[head] = history + ids
        if fault == "wrong_head":
            head = "0" * 40
        await put(wire.Finished(head, finish, len(said), ""))
        if fault == "die@finish":
            die()
        await response.write_eof()


def reply(body: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")


def refusal(status: int, kind: str, message: str, **members: object) -> web.Response:
    body = msgspec.json.encode({"error": {"type": kind, "message": message, **members}})
    return web.Response(status=status, body=body, content_type="application/json")


async def main() -> None:
    flags = argparse.ArgumentParser()
    flags.add_argument("--port", type=int, default=0)
    flags.add_argument("--step-ms", type=float, default=0.0)
    flags.add_argument("--slots", type=int, default=64)
    options = flags.parse_args()
    worker = StubWorker(slots=options.slots, step_s=options.step_ms / 1000)
    runner = web.AppRunner(worker.app(), access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", options.port).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    print(json.dumps({"event": "ready", "url": url, "id": worker.id}), flush=True)
    done = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, done.set)
    await done.wait()
    await runner.cleanup()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
