"""/v1/sessions/{ns}/{name}/turns: a turn is begun, watched, asked after and ended."""

from __future__ import annotations

import asyncio
import re

import msgspec
from aiohttp import web

from berth_api.errors import InvalidRequest
from berth_api.public import TurnCreate, TurnView
from berth_api.wire import Sampling
from berth_gateway.answers import etag, expected_head, json_answer
from berth_gateway.bodies import read_json
from berth_gateway.context import Gateway, gateway_of, pace, session_of
from berth_gateway.keeper import Begin, Replay, view_of
from berth_gateway.ledger.records import OrderMode
from berth_gateway.output import Listener, PublicEvent
from berth_gateway.sse import ClientStream, EventId, EventResponse
from berth_gateway.stream import EventWriter
from berth_gateway.turn import Turn

_create = msgspec.json.Decoder(TurnCreate)
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def routes() -> list[web.RouteDef]:
    turns = "/v1/sessions/{namespace}/{name}/turns"
    return [
        web.post(turns, create),
        web.get(f"{turns}/{{turn}}", show),
        web.post(f"{turns}/{{turn}}/stop", stop),
        web.post(f"{turns}/{{turn}}/abort", abort),
    ]


async def create(request: web.Request) -> web.StreamResponse:
    """POST …/turns."""
    gateway = gateway_of(request)
    arrived = asyncio.get_running_loop().time()
    namespace, name = session_of(request)
    pace(request, namespace)
    http = gateway.settings.http
    body = await read_json(request, _create, limit=http.body_bytes, timeout_s=http.body_s)
    require_one_input(body)
    begin = Begin(namespace, name, body, arrived, idempotency_key(request), expected_head(request))
    if body.stream:
        return await _streamed(request, gateway, begin)
    found = await gateway.keeper.begin(begin, lambda _: ignore)
    if isinstance(found, Replay):
        return _answer(found.view())
    if body.background:
        await asyncio.shield(found.begun)
        running = found.ended.result() if found.ended.done() else TurnView(found.id, "running")
        return _answer(running)
    return _answer(await outlive(found))


async def _streamed(request: web.Request, gateway: Gateway, begin: Begin) -> web.StreamResponse:
    seen = _last_seen(request)
    stream = ClientStream(gateway.settings.stream)

    def listener(turn: str) -> Listener:
        if seen is not None and seen.turn != turn:
            raise InvalidRequest("Last-Event-ID is of another turn", field="Last-Event-ID")
        return EventWriter(stream, turn, seen)

    found = await gateway.keeper.begin(begin, listener)
    if isinstance(found, Replay):
        found.tell(listener(found.id))
    return await pump(request, stream, found)


async def pump(request: web.Request, stream: ClientStream, found: Turn | Replay) -> web.StreamResponse:
    """Answer with a stream once the turn has begun; the client's going ends the turn, unless it is a background one."""
    try:
        if isinstance(found, Turn):
            await asyncio.shield(found.begun)
        response = EventResponse()
        await response.prepare(request)
        chunked = response.headers.get("Transfer-Encoding") == "chunked"  # not where the client speaks HTTP/1.0
        await stream.pump(response, request.transport if chunked else None)
        await response.write_eof()
    except (ConnectionError, asyncio.CancelledError):
        if isinstance(found, Turn):
            found.client_gone()
        raise
    return response


async def outlive(turn: Turn) -> TurnView:
    """Wait for a turn's end; where the waiting is cancelled, the client is gone."""
    try:
        return await asyncio.shield(turn.ended)
    except asyncio.CancelledError:
        turn.client_gone()
        raise


def ignore(event: PublicEvent, output: object) -> None:
    """The listener of a turn whose client waits for the end alone."""


async def show(request: web.Request) -> web.Response:
    """GET …/turns/{id}."""
    gateway = gateway_of(request)
    namespace, name = session_of(request)
    outcome = await gateway.backends.ledger.outcome(namespace, name, request.match_info["turn"])
    if outcome.state != "committed":
        return _answer(view_of(outcome, None))
    record = await gateway.backends.ledger.session(namespace, name)
    words = await gateway.keeper.words(namespace, name, record.uid, outcome, Sampling())
    return _answer(view_of(outcome, words), status=200)


async def stop(request: web.Request) -> web.Response:
    """POST …/stop: what was said so far is committed."""
    return await _order(request, "stop")


async def abort(request: web.Request) -> web.Response:
    """POST …/abort: what was said so far is discarded."""
    return await _order(request, "abort")


async def _order(request: web.Request, mode: OrderMode) -> web.Response:
    namespace, name = session_of(request)
    backends = gateway_of(request).backends
    ended = await backends.ledger.stop(namespace, name, request.match_info["turn"], mode=mode)
    backends.order(ended.release)
    return _answer(view_of(ended.outcome, None))


def _answer(view: TurnView, status: int | None = None) -> web.Response:
    headers = {"ETag": etag(view.head)} if view.head is not None else None
    return json_answer(view, status=status or (202 if view.state == "running" else 200), headers=headers)


def require_one_input(body: TurnCreate) -> None:
    """Raises `InvalidRequest` unless exactly one of `input`, `messages` and `input_ids` is there, and not empty."""
    given = [name for name in ("input", "messages", "input_ids") if getattr(body, name) is not None]
    if len(given) != 1:
        said = " and ".join(given) or "none"
        raise InvalidRequest(f"exactly one of input, messages and input_ids is needed, not {said}", field="input")
    if not getattr(body, given[0]):
        raise InvalidRequest(f"{given[0]} is empty", field=given[0])


def idempotency_key(request: web.Request) -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not _KEY.fullmatch(key):
        raise InvalidRequest("Idempotency-Key must be 1 to 255 visible ASCII characters", field="Idempotency-Key")
    return key


def _last_seen(request: web.Request) -> EventId | None:
    header = request.headers.get("Last-Event-ID")
    return EventId.parse(header) if header else None
