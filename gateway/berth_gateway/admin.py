"""The admin API, on its own port with its own token: the operator and the local fleet are its only callers."""

from __future__ import annotations

import msgspec
from aiohttp import web
from msgspec import structs

from berth_api.admin import (
    AdminSession,
    AdminSessions,
    Namespaces,
    SessionPut,
    WorkerFound,
    WorkerPut,
    WorkerView,
)
from berth_api.errors import InvalidRequest, NoCapacity
from berth_api.public import Origin
from berth_api.wire import WorkerInfo
from berth_gateway.answers import etag, json_answer, whole_number
from berth_gateway.bodies import read_json
from berth_gateway.context import Gateway, gateway_of
from berth_gateway.ledger.records import Limits, SessionRecord, WorkerRecord
from berth_gateway.problems import HttpProblem
from berth_gateway.sessions import view_of
from berth_gateway.workers import WorkerError

_worker = msgspec.json.Decoder(WorkerPut)
_found = msgspec.json.Decoder(WorkerFound)
_session = msgspec.json.Decoder(SessionPut)
_PAGE = 1000


def routes() -> list[web.RouteDef]:
    session = "/admin/sessions/{namespace}/{name}"
    return [
        web.get("/admin/workers", workers),
        web.get("/admin/workers/{id}", worker),
        web.post("/admin/workers", register_worker),
        web.put("/admin/workers/{id}", put_worker),
        web.delete("/admin/workers/{id}", drop_worker),
        web.get("/admin/namespaces", namespaces),
        web.get("/admin/sessions", sessions),
        web.get(session, show_session),
        web.put(session, put_session),
        web.delete(session, close_session),
        web.get("/admin/fleets/{namespace}/{name}", fleet),
        web.get("/admin/changes", changes),
    ]


async def workers(request: web.Request) -> web.Response:
    """GET /admin/workers[?namespace=]: of all fleets."""
    return json_answer([_view(one) for one in await _all_workers(request)])


async def worker(request: web.Request) -> web.Response:
    return json_answer(_view(await _find(request)))


async def put_worker(request: web.Request) -> web.Response:
    """PUT /admin/workers/{id}: ask the worker who it is, then register it.

    One that is known there is only cordoned or not: that must work for a worker that does not answer, above all.
    """
    gateway, named = gateway_of(request), request.match_info["id"]
    http = gateway.settings.http
    body = await read_json(request, _worker, limit=http.body_bytes, timeout_s=http.body_s)
    ledger = gateway.backends.ledger
    known = await ledger.worker(body.namespace, named)
    if known is not None and (known.fleet, known.url) == (body.fleet, body.url.rstrip("/")):
        await ledger.cordon(body.namespace, named, on=body.cordoned)
        return json_answer(_view(structs.replace(known, cordoned=body.cordoned)))
    info = await _asked(gateway, body, named)
    if info.id != named:
        raise InvalidRequest(f"worker {info.id} answers at {body.url}, not {named}", field="url")
    return await _registered(gateway, body, info)


async def register_worker(request: web.Request) -> web.Response:
    """POST /admin/workers: ask who answers there, and register it if it is of the pod that is meant."""
    gateway = gateway_of(request)
    http = gateway.settings.http
    body = await read_json(request, _found, limit=http.body_bytes, timeout_s=http.body_s)
    info = await _asked(gateway, body, None)
    if not info.id.startswith(f"{body.uid}."):
        raise InvalidRequest(f"worker {info.id} answers at {body.url}, not one of pod {body.uid}", field="url")
    return await _registered(gateway, body, info)


async def drop_worker(request: web.Request) -> web.Response:
    """DELETE /admin/workers/{id}: forget it. One that nobody knows is 404."""
    found = await _find(request)
    await gateway_of(request).backends.ledger.drop_worker(found.namespace, found.id)
    return web.Response(status=204)


async def sessions(request: web.Request) -> web.Response:
    """GET /admin/sessions?namespace&origin&limit&after: one namespace, by name."""
    namespace = request.query.get("namespace", "default")
    limit = whole_number(request, "limit", 500, most=_PAGE)
    ledger = gateway_of(request).backends.ledger
    page = await ledger.sessions(namespace, after=request.query.get("after", ""), limit=limit, origin=_origin(request))
    return json_answer(AdminSessions([_session_view(record) for record in page.sessions], page.next))


async def show_session(request: web.Request) -> web.Response:
    record = await gateway_of(request).backends.ledger.session(*_named(request))
    return json_answer(_session_view(record), headers={"ETag": etag(record.head)})


async def put_session(request: web.Request) -> web.Response:
    """PUT /admin/sessions/{ns}/{name}: a resource wants it so; 201 where it was made by this."""
    gateway = gateway_of(request)
    http = gateway.settings.http
    body = await read_json(request, _session, limit=http.body_bytes, timeout_s=http.body_s)
    limits = Limits(
        body.idle_timeout_s, body.hibernate_after_s, body.max_tokens, body.on_worker_failure, body.deletion_policy
    )
    opened = await gateway.backends.ledger.open(
        *_named(request),
        body.uid,
        fleet=body.fleet,
        origin="cr",
        limits=limits,
        suspend=body.suspend,
        bind=body.bind,
        seen=(body.turns, body.head) if body.turns is not None and body.head is not None else None,
    )
    gateway.backends.order(*opened.releases)
    return json_answer(_session_view(opened.session), status=201 if opened.created else 200)


async def close_session(request: web.Request) -> web.Response:
    """DELETE /admin/sessions/{ns}/{name}[?uid=]: its resource is gone; 202 where a turn has to end first."""
    gateway = gateway_of(request)
    closed = await gateway.backends.ledger.close(*_named(request), uid=request.query.get("uid"), by="cr")
    gateway.backends.order(closed.release)
    return web.Response(status=202 if closed.deferred else 204)


async def fleet(request: web.Request) -> web.Response:
    return json_answer(await gateway_of(request).backends.ledger.fleet(*_named(request)))


async def namespaces(request: web.Request) -> web.Response:
    return json_answer(Namespaces(await gateway_of(request).backends.ledger.namespaces()))


async def changes(request: web.Request) -> web.Response:
    """GET /admin/changes?namespace&after: what moved since; 410 means list again."""
    ledger = gateway_of(request).backends.ledger
    limit = whole_number(request, "limit", _PAGE, most=_PAGE)
    namespace = request.query.get("namespace", "default")
    return json_answer(await ledger.changes(namespace, after=request.query.get("after"), limit=limit))


async def _all_workers(request: web.Request) -> list[WorkerRecord]:
    ledger = gateway_of(request).backends.ledger
    wanted = request.query.get("namespace")
    namespaces = [wanted] if wanted is not None else await ledger.namespaces()
    return [one for namespace in namespaces for one in await ledger.workers(namespace)]


async def _find(request: web.Request) -> WorkerRecord:
    named = request.match_info["id"]
    found = next((one for one in await _all_workers(request) if one.id == named), None)
    if found is None:
        raise HttpProblem(404, f"no worker {named}")
    return found


async def _asked(gateway: Gateway, body: WorkerPut | WorkerFound, named: str | None) -> WorkerInfo:
    """Return what the worker at the body's address says of itself."""
    if not body.url.startswith(("http://", "https://")):
        raise InvalidRequest("url must begin with http:// or https://", field="url")
    try:
        return await gateway.backends.workers.info(named, body.url.rstrip("/"))
    except WorkerError as error:
        who = f"worker {named}" if named else "the worker"
        raise NoCapacity(f"{who} at {body.url} cannot be asked: {error}", retry_after=1) from None


async def _registered(gateway: Gateway, body: WorkerPut | WorkerFound, info: WorkerInfo) -> web.Response:
    record = await gateway.backends.ledger.put_worker(
        body.namespace,
        info.id,
        fleet=body.fleet,
        url=body.url.rstrip("/"),
        slots=info.slots,
        fingerprint=info.model.fingerprint,
        cordoned=body.cordoned,
    )
    return json_answer(_view(record))


def _origin(request: web.Request) -> Origin | None:
    match request.query.get("origin"):
        case None | "cr" | "http" as origin:
            return origin
        case _:
            raise InvalidRequest("origin must be cr or http", field="origin")


def _named(request: web.Request) -> tuple[str, str]:
    return request.match_info["namespace"], request.match_info["name"]


def _view(record: WorkerRecord) -> WorkerView:
    return WorkerView(
        id=record.id,
        namespace=record.namespace,
        fleet=record.fleet,
        url=record.url,
        slots=record.slots,
        fingerprint=record.fingerprint,
        cordoned=record.cordoned,
        suspect=record.suspect,
        running=record.running,
        idle=record.idle,
        waiting=record.waiting,
    )


def _session_view(record: SessionRecord) -> AdminSession:
    limits = record.limits
    return AdminSession(
        **structs.asdict(view_of(record)),
        closing=record.closing,
        suspended=record.suspended,
        lost=record.lost,
        stranded=record.stranded,
        recoveries=record.recoveries,
        last_recovery=record.last_recovery,
        idle_timeout_s=limits.idle_timeout_s,
        hibernate_after_s=limits.hibernate_after_s,
        max_tokens=limits.max_tokens,
        on_worker_failure=limits.on_worker_failure,
        deletion_policy=limits.deletion_policy,
    )
