"""SGLang's native routes: /generate, sessions of the worker's own, abort and flush."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from berth_api.errors import InvalidRequest, TooLong
from berth_worker.server.bodies import decode, read
from berth_worker.server.problems import error_body, refusal
from berth_worker.server.sglang import (
    AbortBody,
    CloseBody,
    GenerateBody,
    OpenBody,
    Prompt,
    Reply,
    prompts,
    requests,
)
from berth_worker.server.stream import KEEPALIVE, EventStream, open_sse, sse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from berth_worker.engine.core import Core
    from berth_worker.engine.requests import Generate
    from berth_worker.server.served import Served

DONE = sse(b"[DONE]")
INLINE_BYTES = 256 << 10
"""Bodies above this are decoded off the event loop."""


class Call:
    """One prompt of a /generate call: its request, its events and the answer so far."""

    def __init__(self, request: Generate, served: Served, *, with_text: bool) -> None:
        began = time.monotonic()
        self.request = request
        self.stream = EventStream()

        def text_of(token: int) -> str:
            return served.tokenizer.decode([token], skip_special_tokens=False)

        self.reply = Reply(request, text_of if with_text else None, lambda: time.monotonic() - began)

    def accept(self, core: Core) -> None:
        """Have the engine accept the request (engine thread)."""
        core.generate(self.request, self.stream)


async def generate(request: web.Request, served: Served) -> web.StreamResponse:
    """POST /generate with a JSON body. The client's going aborts what is left of it."""
    raw = await request.read()
    large = len(raw) > INLINE_BYTES
    body = await asyncio.to_thread(decode, GenerateBody, raw) if large else decode(GenerateBody, raw)
    given, many = prompts(body)
    ids = [prompt.ids if prompt.text is None else await _encode(prompt, served) for prompt in given]
    calls = [Call(each, served, with_text=body.return_text_in_logprobs) for each in requests(body, ids)]
    try:
        await _accept(calls, served)
        if body.stream:
            return await _stream(request, calls, served, many=many)
        return await _answer(calls, many=many)
    except TooLong as error:
        return refusal(error, status=400)
    finally:
        for call in calls:
            if not call.stream.ended:
                served.engine.cancel(call.stream, "disconnected", "the caller went away")


async def _encode(prompt: Prompt, served: Served) -> list[int]:
    text = prompt.text or ""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"text is not Unicode: {error}", field="text") from error
    # A long text takes the tokenizer a while; it lets go of the interpreter lock meanwhile.
    return await asyncio.to_thread(served.tokenizer.encode, text, add_special_tokens=True)


async def _accept(calls: list[Call], served: Served) -> None:
    """Have all requests of a call accepted; when one is refused, the caller's cleanup aborts the others."""
    for call in calls:
        await served.engine.ask(call.accept)


async def _answer(calls: list[Call], *, many: bool) -> web.Response:
    for call in calls:
        while not call.stream.ended:
            for event in await call.stream.read():
                call.reply.add(event)
    failed = next((call.reply.failed for call in calls if call.reply.failed is not None), None)
    if failed is not None:
        body = error_body("internal_error", failed.message)
        return web.Response(status=500, body=body, content_type="application/json")
    bodies = [call.reply.body() for call in calls]
    return web.Response(body=msgspec.json.encode(bodies if many else bodies[0]), content_type="application/json")


async def _stream(request: web.Request, calls: list[Call], served: Served, *, many: bool) -> web.StreamResponse:
    response = await open_sse(request)
    lock = asyncio.Lock()

    async def pump(index: int, call: Call) -> None:
        async for chunk in _chunks(call, served.settings.server.keepalive_s, index if many else None):
            async with lock:
                await response.write(chunk)

    async with asyncio.TaskGroup() as group:
        for index, call in enumerate(calls):
            group.create_task(pump(index, call))
    await response.write(DONE)
    await response.write_eof()
    return response


async def _chunks(call: Call, keepalive_s: float, index: int | None) -> AsyncIterator[bytes]:
    """Yield the answer so far whenever it grew: a slow reader gets fewer, larger chunks."""
    while not call.stream.ended:
        events = await call.stream.read(keepalive_s)
        for event in events:
            call.reply.add(event)
        body = call.reply.body()
        visible = body["output_ids"] or body["meta_info"]["finish_reason"]
        if events and visible:
            yield sse(msgspec.json.encode(body if index is None else body | {"index": index}))
        else:
            yield KEEPALIVE


async def open_session(request: web.Request, served: Served) -> web.Response:
    """POST /open_session."""
    body = await read(OpenBody, request)
    streaming = bool(body.streaming)
    session_id = await served.engine.ask(
        lambda core: core.open(body.session_id, body.capacity_of_str_len, body.timeout, streaming=streaming)
    )
    return web.json_response(session_id)


async def close_session(request: web.Request, served: Served) -> web.Response:
    """POST /close_session."""
    body = await read(CloseBody, request)
    await served.engine.ask(lambda core: core.close(body.session_id))
    return _done()


async def abort_request(request: web.Request, served: Served) -> web.Response:
    """POST /abort_request."""
    body = await read(AbortBody, request)
    await served.engine.ask(body.carry_out)
    return _done()


async def flush_cache(request: web.Request, served: Served) -> web.Response:
    """POST /flush_cache. A body, if there is one, is ignored."""
    del request
    await served.engine.ask(lambda core: core.flush())
    return _done()


def _done(**members: Any) -> web.Response:
    return web.json_response({"success": True, **members})
