"""/v1/chat/completions and /v1/models: OpenAI's dialect over the same turns.

With X-Session-ID the conversation is a session (made if absent) and `messages` are the new ones only. Without it the
request is a session of one turn, closed behind it.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from functools import partial
from typing import Any

import msgspec
from aiohttp import web

from berth_api.errors import BerthError, InvalidRequest, NoCapacity, NoSuchFleet, NoSuchModel, NoSuchSession
from berth_api.public import NAME_PATTERN, TurnAborted, TurnCommitted, TurnStarted, TurnToken, TurnUnknown, TurnView
from berth_gateway.answers import json_answer
from berth_gateway.bodies import read_json
from berth_gateway.context import Gateway, caller, gateway_of, pace
from berth_gateway.keeper import Begin, Replay
from berth_gateway.ledger.records import Limits
from berth_gateway.openai_wire import ChatRequest, Chunk, as_turn, choice, logprobs_of, usage_of
from berth_gateway.output import Output, PublicEvent
from berth_gateway.problems import HttpProblem, openai_error
from berth_gateway.sessions import generated_name
from berth_gateway.sse import ClientStream
from berth_gateway.tokens import ModelText
from berth_gateway.turns import idempotency_key, ignore, outlive, pump

_chat = msgspec.json.Decoder(ChatRequest)
_encoder = msgspec.json.Encoder()
_NAME = re.compile(NAME_PATTERN)
_ONE_OFF_IDLE_S = 120.0
"""A one-off session that was not closed behind its turn (its gateway died) goes after this."""


def routes() -> list[web.RouteDef]:
    return [web.post("/v1/chat/completions", complete), web.get("/v1/models", models)]


async def models(request: web.Request) -> web.Response:
    """GET /v1/models: the fleets of the caller's namespaces; those of its home by their bare name, too."""
    ledger, principal = gateway_of(request).backends.ledger, caller(request)
    found: list[str] = []
    for namespace in sorted(await ledger.namespaces()):
        if principal.allows(namespace):
            prefix = "" if namespace == principal.home else f"{namespace}/"
            found += [prefix + fleet for fleet in await ledger.fleets(namespace)]
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "berth"} for name in found]
    return json_answer({"object": "list", "data": data})


async def complete(request: web.Request) -> web.StreamResponse:
    """POST /v1/chat/completions."""
    gateway, arrived = gateway_of(request), asyncio.get_running_loop().time()
    http = gateway.settings.http
    chat = await read_json(request, _chat, limit=http.body_bytes, timeout_s=http.body_s)
    where, slash, wanted = chat.model.rpartition("/")
    header = request.headers.get("X-Session-ID")
    if header is not None:
        namespace, name = _session_name(request, header, where if slash else None)
    else:
        namespace, name = where if slash else caller(request).home, generated_name("chat")
        caller(request).require(namespace)
    pace(request, namespace)
    fleet = await _fleet(gateway, namespace, wanted)
    try:
        if header is not None:
            model = await _join(gateway, namespace, name, fleet)
        else:
            model = await _open(gateway, namespace, name, fleet, one_off=True)
        body = as_turn(chat, model.info.context_length)
        begin = Begin(namespace, name, body, arrived, idempotency_key(request) if header is not None else None)
        return await _answer(request, gateway, begin, chat, model)
    finally:
        if header is None:
            gateway.backends.run(_close(gateway, namespace, name))


async def _answer(
    request: web.Request, gateway: Gateway, begin: Begin, chat: ChatRequest, model: ModelText
) -> web.StreamResponse:
    if chat.stream:
        stream = ClientStream(gateway.settings.stream)
        writer = ChunkWriter(stream, chat, model)
        found = await gateway.keeper.begin(begin, lambda turn: partial(writer.write, turn))
        if isinstance(found, Replay):
            found.tell(partial(writer.write, found.id))
        return await pump(request, stream, found)
    found = await gateway.keeper.begin(begin, lambda _: ignore)
    view = found.view() if isinstance(found, Replay) else await outlive(found)
    return json_answer(_completion(view, chat, model))


def _completion(view: TurnView, chat: ChatRequest, model: ModelText) -> dict[str, Any]:
    """Raises `HttpProblem` for a turn that came to nothing."""
    if view.state != "committed" or view.usage is None:
        raise HttpProblem(503, f"the turn was {view.state}: {view.reason}", kind="turn_failed", turn=view.turn)
    message = {"role": "assistant", "content": view.text or "", "refusal": None}
    logprobs = logprobs_of(view.logprobs, model.token)
    return {
        "id": f"chatcmpl-{view.turn}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": chat.model,
        "choices": [choice("message", message, view.finish_reason, logprobs)],
        "usage": usage_of(view.usage),
    }


class ChunkWriter:
    """A listener that speaks in OpenAI's chunks, `data: [DONE]` at the end."""

    def __init__(self, stream: ClientStream, chat: ChatRequest, model: ModelText) -> None:
        self._stream = stream
        self._chat = chat
        self._model = model
        self._created = int(time.time())
        self._with_usage = chat.stream_options is not None and chat.stream_options.include_usage

    def write(self, turn: str, event: PublicEvent, output: Output) -> None:
        del output
        match event:
            case TurnStarted():
                self._put(turn, [choice("delta", {"role": "assistant", "content": ""}, None, None)])
            case TurnToken(_, text, logprobs):
                if text or logprobs:
                    shown = logprobs_of(logprobs, self._model.token)
                    self._put(turn, [choice("delta", {"content": text}, None, shown)])
            case TurnCommitted():
                self._put(turn, [choice("delta", {}, event.finish_reason, None)])
                if self._with_usage:
                    self._put(turn, [], usage_of(event.usage))
                self._end()
            case TurnAborted(reason=reason):
                self._fail(f"the turn was aborted: {reason}")
            case TurnUnknown(reason=reason):
                self._fail(f"whether the turn is durable is unknown: {reason}")

    def _put(self, turn: str, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> None:
        chunk = Chunk(f"chatcmpl-{turn}", self._created, self._chat.model, choices, usage=usage)
        self._stream.put(b"data: %b\n\n" % _encoder.encode(chunk))

    def _fail(self, message: str) -> None:
        error = openai_error({"status": 503, "detail": message, "type": "turn_failed"})
        self._stream.put(b"data: %b\n\n" % _encoder.encode(error))
        self._end()

    def _end(self) -> None:
        self._stream.put(b"data: [DONE]\n\n")
        self._stream.end()


async def _fleet(gateway: Gateway, namespace: str, model: str) -> str:
    """Return the fleet that a model's name means in a namespace.

    Clients know models by their own names, so that of the one fleet which serves it is good, too. Raises `NoSuchModel`.
    """
    known = await gateway.backends.ledger.fleets(namespace) if _is_name(namespace) else []
    if model in known:
        return model
    serving = [one for one in known if await _model_name(gateway, namespace, one) == model]
    if len(serving) == 1:
        return serving[0]
    if serving:
        raise NoSuchModel(f"several fleets serve {model!r}: name one of {', '.join(serving)}", field="model")
    raise NoSuchModel(f"no model {model!r}; GET /v1/models lists them", field="model")


async def _model_name(gateway: Gateway, namespace: str, fleet: str) -> str | None:
    """Return what the fleet's model calls itself; None while no worker can tell."""
    try:
        view = await gateway.backends.ledger.fleet(namespace, fleet)
        return (await gateway.models.get(namespace, fleet, view.fingerprint)).info.name
    except (NoCapacity, NoSuchFleet):
        return None


def _session_name(request: web.Request, header: str, namespace: str | None) -> tuple[str, str]:
    """Return (namespace, name) of X-Session-ID. Raises `InvalidRequest`, `Forbidden`."""
    where, slash, name = header.strip().rpartition("/")
    where = where if slash else (namespace or caller(request).home)
    if not _is_name(where) or not _is_name(name):
        raise InvalidRequest("X-Session-ID must be <name> or <namespace>/<name>", field="X-Session-ID")
    caller(request).require(where)
    if namespace is not None and namespace != where:
        raise InvalidRequest("the session and the model are of different namespaces", field="X-Session-ID")
    return where, name


async def _join(gateway: Gateway, namespace: str, name: str, fleet: str) -> ModelText:
    """Return the model of a session, made now if it is not there. Raises `InvalidRequest` for another fleet's."""
    try:
        record = await gateway.backends.ledger.session(namespace, name)
    except NoSuchSession:
        return await _open(gateway, namespace, name, fleet, one_off=False)
    if record.fleet != fleet:
        raise InvalidRequest(f"session {namespace}/{name} belongs to fleet {record.fleet!r}", field="model")
    return await gateway.models.get(namespace, fleet, record.fingerprint)


async def _open(gateway: Gateway, namespace: str, name: str, fleet: str, *, one_off: bool) -> ModelText:
    opened = await gateway.backends.ledger.open(
        namespace,
        name,
        str(uuid.uuid4()),
        fleet=fleet,
        limits=Limits(idle_timeout_s=_ONE_OFF_IDLE_S) if one_off else None,
        exist_ok=not one_off,
    )
    gateway.backends.order(*opened.releases)
    return await gateway.models.get(namespace, fleet, opened.session.fingerprint)


async def _close(gateway: Gateway, namespace: str, name: str) -> None:
    try:
        closed = await gateway.backends.ledger.close(namespace, name, reason="one_off")
    except BerthError:
        return  # its idle time closes it
    gateway.backends.order(closed.release)


def _is_name(text: str) -> bool:
    return bool(_NAME.fullmatch(text))
