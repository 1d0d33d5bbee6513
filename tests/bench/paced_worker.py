"""A worker that generates nothing: it says one token at a fixed pace, and when it said it.

Each token's text is the machine's monotonic clock at the moment of writing, so a client on the same machine knows how
long that token travelled, directly or through a gateway. It takes no notice of what it is sent.

    python tests/bench/paced_worker.py --model FOLDER --interval-ms 2
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import time
import uuid
from pathlib import Path

import msgspec
import uvloop
from aiohttp import web

from berth_api import heads, wire

FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
TOKEN = 65


class PacedWorker:
    """The routes that a gateway needs."""

    def __init__(self, model: Path, interval_s: float) -> None:
        self._interval_s = interval_s
        self._files = {name: (model / name).read_bytes() for name in FILES if (model / name).exists()}
        self._model = wire.ModelInfo(
            name=model.name,
            fingerprint="paced",
            vocab_size=264,
            context_length=1 << 20,
            bos_token_id=256,
            eos_token_ids=[257],
            files={name: hashlib.sha256(data).hexdigest() for name, data in self._files.items()},
        )
        self.id = f"paced.{uuid.uuid4()}"

    def app(self) -> web.Application:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/generate", self.generate)
        app.router.add_get("/berth/model", self.model)
        app.router.add_get("/berth/model/files/{name}", self.file)
        app.router.add_get("/get_server_info", self.info)
        app.router.add_get("/health", self.health)
        app.router.add_post("/berth/{order}", self.order)
        return app

    async def generate(self, request: web.Request) -> web.StreamResponse:
        turn = msgspec.msgpack.decode(await request.read(), type=wire.TurnRequest)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        count = turn.sampling.max_new_tokens
        await response.write(_sse(wire.Started(len(turn.input_ids) // 4, 0)))
        await _Pace(request.transport, count, self._interval_s).end
        head = heads.advance(turn.parent, turn.input_ids + TOKEN.to_bytes(4, "little") * count)
        await response.write(_sse(wire.Finished(head, wire.FinishReason("length"), count, "")))
        await response.write_eof()
        return response

    async def model(self, request: web.Request) -> web.Response:
        del request
        return _json(self._model)

    async def file(self, request: web.Request) -> web.Response:
        return web.Response(body=self._files[request.match_info["name"]])

    async def info(self, request: web.Request) -> web.Response:
        del request
        info = wire.WorkerInfo(self.id, wire.WIRE_VERSION, self._model, 1 << 12, 0, 0, 0)
        return _json({"berth": info})

    async def health(self, request: web.Request) -> web.Response:
        del request
        return web.Response()

    async def order(self, request: web.Request) -> web.Response:
        del request
        return web.json_response({"found": False, "released": True})


class _Pace:
    """Writes one stream's tokens, the first at once: a callback and a system call each, so that thousands a second are
    no burden to the core that this worker shares with whoever measures.
    """

    def __init__(self, transport: asyncio.Transport | None, count: int, interval_s: float) -> None:
        self._transport = transport
        self._left = count
        self._interval_s = interval_s
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time()
        self.end = self._loop.create_future()
        """Done when the last one is written, or nobody takes them any more."""
        self._tick()

    def _tick(self) -> None:
        if self.end.done() or self._transport is None or self._transport.is_closing() or not self._left:
            if not self.end.done():
                self.end.set_result(None)
            return
        event = b'data: {"event":"tokens","ids":[%d],"text":"%.7f "}\n\n' % (TOKEN, time.monotonic())
        self._transport.write(b"%x\r\n%b\r\n" % (len(event), event))
        self._left -= 1
        self._due += self._interval_s
        self._loop.call_at(self._due, self._tick)


def _sse(event: wire.WorkerEvent) -> bytes:
    return b"data: " + msgspec.json.encode(event) + b"\n\n"


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


async def main(model: Path, interval_s: float) -> None:
    worker = PacedWorker(model, interval_s)
    runner = web.AppRunner(worker.app(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    ready = {"event": "ready", "url": f"http://127.0.0.1:{port}", "id": worker.id, "pid": os.getpid()}
    print(json.dumps(ready), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--model", type=Path, required=True, help="a checkpoint folder, for its tokenizer")
    flags.add_argument("--interval-ms", type=float, default=2.0)
    chosen = flags.parse_args()
    uvloop.run(main(chosen.model, chosen.interval_ms / 1e3))
