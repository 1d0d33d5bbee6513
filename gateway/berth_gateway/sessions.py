"""/v1/sessions: sessions are made, looked at, read back and closed."""

from __future__ import annotations

import asyncio
import uuid

import msgspec
from aiohttp import web

from berth_api.errors import InvalidRequest
from berth_api.heads import advance
from berth_api.public import HistoryTurn, HistoryView, SessionCreate, SessionView
from berth_api.wire import Sampling
from berth_gateway.answers import etag, json_answer, whole_number
from berth_gateway.bodies import read_json
from berth_gateway.context import caller, gateway_of, pace, session_of
from berth_gateway.events import unpack
from berth_gateway.ledger.records import History, Limits, Outcome, SessionRecord
from berth_gateway.tokens import ModelText

_create = msgspec.json.Decoder(SessionCreate)
_PAGE = 1000
"""Most sessions or turns in one answer."""


def routes() -> list[web.RouteDef]:
    one = "/v1/sessions/{namespace}/{name}"
    return [
        web.post("/v1/sessions", create),
        web.get("/v1/sessions", listing),
        web.get(one, show),
        web.get(f"{one}/history", history),
        web.delete(one, close),
    ]


def view_of(record: SessionRecord) -> SessionView:
    return SessionView(
        namespace=record.namespace,
        name=record.name,
        uid=record.uid,
        origin=record.origin,
        fleet=record.fleet,
        state=record.state,
        head=record.head,
        turns=record.turns,
        tokens=record.tokens,
        worker=record.worker,
        last_active=record.last_active,
        endpoint=f"/v1/sessions/{record.namespace}/{record.name}",
    )


async def create(request: web.Request) -> web.Response:
    """POST /v1/sessions."""
    gateway = gateway_of(request)
    http = gateway.settings.http
    body = await read_json(request, _create, limit=http.body_bytes, timeout_s=http.body_s)
    caller(request).require(body.namespace)
    pace(request, body.namespace)
    source = body.from_
    limits = Limits(body.idle_timeout_s, body.hibernate_after_s, body.max_tokens)
    opened = await gateway.backends.ledger.open(
        body.namespace,
        body.name or generated_name(),
        str(uuid.uuid4()),
        fleet=None if source is not None and body.fleet == "default" else body.fleet,
        limits=limits,
        fork=(source.session, source.turn) if source is not None else None,
    )
    gateway.backends.order(*opened.releases)
    view = view_of(opened.session)
    return json_answer(view, status=201, headers={"ETag": etag(view.head), "Location": view.endpoint})


def generated_name(kind: str = "s") -> str:
    """Return a name that nobody has."""
    return f"{kind}-{uuid.uuid4().hex[:20]}"


async def listing(request: web.Request) -> web.Response:
    """GET /v1/sessions?limit&after[&namespace]: by namespace and name; `after` is the last one's `ns/name`."""
    gateway, principal = gateway_of(request), caller(request)
    limit = whole_number(request, "limit", 100, most=_PAGE)
    after_namespace, slash, after_name = request.query.get("after", "").partition("/")
    if after_namespace and not slash:
        raise InvalidRequest("after must be <namespace>/<name>, as `next` said", field="after")
    wanted = request.query.get("namespace")
    if wanted is not None:
        principal.require(wanted)
    found: list[SessionView] = []
    following = None
    for namespace in sorted(await gateway.backends.ledger.namespaces()):
        if namespace < after_namespace or not principal.allows(namespace) or wanted not in (None, namespace):
            continue
        start = after_name if namespace == after_namespace else ""
        while len(found) < limit:
            page = await gateway.backends.ledger.sessions(namespace, after=start, limit=limit - len(found))
            found += [view_of(record) for record in page.sessions]
            if page.next is None:
                break
            start = page.next
        if len(found) >= limit:
            following = f"{found[-1].namespace}/{found[-1].name}"
            break
    return json_answer({"sessions": found, "next": following})


async def show(request: web.Request) -> web.Response:
    """GET /v1/sessions/{ns}/{name}; If-None-Match with the head answers 304."""
    record = await gateway_of(request).backends.ledger.session(*session_of(request))
    headers = {"ETag": etag(record.head)}
    if request.headers.get("If-None-Match") == headers["ETag"]:
        return web.Response(status=304, headers=headers)
    return json_answer(view_of(record), headers=headers)


async def history(request: web.Request) -> web.Response:
    """GET …/history: committed turns as text and ids."""
    gateway = gateway_of(request)
    namespace, name = session_of(request)
    ledger = gateway.backends.ledger
    record = await ledger.session(namespace, name)
    found = await ledger.history(namespace, name, uid=record.uid)
    model = await gateway.models.get(namespace, record.fleet, record.fingerprint)
    outcomes = await ledger.outcomes(namespace, name, uid=record.uid)
    known = {outcome.position: outcome for outcome in outcomes}
    inputs = await ledger.input_tokens(namespace, name, uid=record.uid, stop=found.start + len(found.turns))
    view = await asyncio.to_thread(_history_view, model, found, inputs, known)
    return json_answer(view, headers={"ETag": etag(found.head)})


def _history_view(model: ModelText, found: History, inputs: list[int], known: dict[int | None, Outcome]) -> HistoryView:
    """The turn's id and its end are told while its outcome is kept; a fork has its source's turns without them."""
    head, turns, before = found.base, [], b""
    for position, (packed, input_tokens) in enumerate(zip(found.turns, inputs, strict=True), start=found.start):
        outcome = known.get(position)
        asked, said = packed[: 4 * input_tokens], packed[4 * input_tokens :]
        head = advance(head, packed)
        text = model.output_text(asked or before, said, outcome.finish if outcome else None, Sampling())
        turn = outcome.turn if outcome else None
        turns.append(HistoryTurn(position, head, unpack(asked), unpack(said), model.decode(asked), text, turn))
        before = packed
    return HistoryView(head, turns)


async def close(request: web.Request) -> web.Response:
    """DELETE: 204 closed, 202 when a running turn has to end first."""
    gateway = gateway_of(request)
    closed = await gateway.backends.ledger.close(*session_of(request))
    gateway.backends.order(closed.release)
    return web.Response(status=202 if closed.deferred else 204)
