"""The HTTP application of one node: Chroma's routes as `chroma run` has them, errors in one place."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from aiohttp import web

from cluster.api import catalog_routes, headers, record_routes, system_routes
from cluster.api.exchange import (
    UNTYPED,
    Exchange,
    bare_response,
    decode_parameters,
    empty_response,
    error_response,
)
from cluster.api.fields import Undecodable
from cluster.api.forward import Forwarder
from cluster.errors import ClusterError, Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from cluster.api.interface import Service

log = logging.getLogger(__name__)

Handler: TypeAlias = "Callable[[Exchange], Awaitable[web.StreamResponse]]"


@dataclass(frozen=True, slots=True)
class Route:
    """What answers one method on one path.

    `body`: whether there is one, and with `streamed` that Chroma words its limit differently.
    `leads`: a write, to be handled by the leader only.
    """

    handle: Handler
    body: bool = False
    streamed: bool = False
    leads: bool = False


_DATABASE: Final = "/api/v2/tenants/{tenant}/databases/{database}"
_COLLECTION: Final = f"{_DATABASE}/collections/{{collection_id}}"
_POST: Final = "POST"

#: Clients show it with an error; without tracing, `chroma run` sends zeros.
_TRACE_ID: Final = "chroma-trace-id"
_NO_TRACE: Final = "0" * 32

#: As proxies log it; nobody sees it.
_CLIENT_CLOSED_REQUEST: Final = 499

#: In the order in which Chroma names the methods in `Allow`.
_ROUTES: Final[dict[str, dict[str, Route]]] = {
    "/api/v2": {"GET": Route(system_routes.heartbeat)},
    "/api/v2/healthcheck": {"GET": Route(system_routes.healthcheck)},
    "/api/v2/heartbeat": {"GET": Route(system_routes.heartbeat)},
    "/api/v2/pre-flight-checks": {"GET": Route(system_routes.pre_flight_checks)},
    "/api/v2/reset": {_POST: Route(system_routes.reset)},
    "/api/v2/version": {"GET": Route(system_routes.version)},
    "/api/v2/auth/identity": {"GET": Route(system_routes.identity)},
    "/api/v2/collections/{crn}": {"GET": Route(system_routes.crn)},
    "/api/v2/tenants": {_POST: Route(catalog_routes.create_tenant, body=True, leads=True)},
    "/api/v2/tenants/{tenant_name}": {
        "GET": Route(catalog_routes.get_tenant),
        "PATCH": Route(catalog_routes.update_tenant, body=True, leads=True),
    },
    "/api/v2/tenants/{tenant}/databases": {
        "GET": Route(catalog_routes.list_databases),
        _POST: Route(catalog_routes.create_database, body=True, leads=True),
    },
    _DATABASE: {
        "GET": Route(catalog_routes.get_database),
        "DELETE": Route(catalog_routes.delete_database, leads=True),
    },
    f"{_DATABASE}/collections": {
        _POST: Route(catalog_routes.create_collection, body=True, leads=True),
        "GET": Route(catalog_routes.list_collections),
    },
    f"{_DATABASE}/collections_count": {"GET": Route(catalog_routes.count_collections)},
    f"{_DATABASE}/collections/by-id/{{collection_id}}": {"GET": Route(catalog_routes.get_collection_by_id)},
    _COLLECTION: {
        "GET": Route(catalog_routes.get_collection),
        "PUT": Route(catalog_routes.update_collection, body=True, leads=True),
        "DELETE": Route(catalog_routes.delete_collection, leads=True),
    },
    f"{_COLLECTION}/fork": {_POST: Route(catalog_routes.fork_collection, body=True)},
    f"{_COLLECTION}/fork_count": {"GET": Route(catalog_routes.fork_count)},
    f"{_COLLECTION}/indexing_status": {"GET": Route(catalog_routes.indexing_status)},
    f"{_COLLECTION}/add": {_POST: Route(record_routes.add, body=True, streamed=True, leads=True)},
    f"{_COLLECTION}/update": {_POST: Route(record_routes.update, body=True, streamed=True, leads=True)},
    f"{_COLLECTION}/upsert": {_POST: Route(record_routes.upsert, body=True, streamed=True, leads=True)},
    f"{_COLLECTION}/delete": {_POST: Route(record_routes.delete, body=True, leads=True)},
    f"{_COLLECTION}/count": {"GET": Route(record_routes.count)},
    f"{_COLLECTION}/get": {_POST: Route(record_routes.get, body=True)},
    f"{_COLLECTION}/query": {_POST: Route(record_routes.query, body=True, streamed=True)},
    f"{_COLLECTION}/search": {_POST: Route(record_routes.search, body=True, streamed=True)},
    f"{_COLLECTION}/functions/attach": {
        _POST: Route(record_routes.attach_function, body=True, streamed=True)
    },
    f"{_COLLECTION}/functions/{{function_name}}": {"GET": Route(record_routes.get_function)},
    f"{_COLLECTION}/attached_functions/{{name}}/detach": {
        _POST: Route(record_routes.detach_function, body=True, streamed=True)
    },
    "/openapi.json": {"GET": Route(system_routes.documents)},
    "/docs": {"GET": Route(system_routes.documents)},
}
_V1: Final = ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS")
_V1_ROUTE: Final = Route(system_routes.v1)
_DOCS_ROUTE: Final = Route(system_routes.documents)


@dataclass(slots=True)
class _Node:
    """One part of a path in the tree of routes; `route` is the path that ends here."""

    fixed: dict[str, _Node] = field(default_factory=dict[str, "_Node"])
    named: _Node | None = None
    route: tuple[str, ...] = ()
    methods: dict[str, Route] = field(default_factory=dict[str, Route])


@dataclass(frozen=True, slots=True)
class Match:
    """Where a path leads: its methods, the parts of the route and the raw values of its names."""

    methods: dict[str, Route]
    route: tuple[str, ...] = ()
    raw: dict[str, str] = field(default_factory=dict[str, str])


def _tree(routes: dict[str, dict[str, Route]]) -> _Node:
    root = _Node()
    for path, methods in routes.items():
        node = root
        for part in path[1:].split("/"):
            if part.startswith("{"):
                node.named = node.named or _Node()
                node = node.named
            else:
                node = node.fixed.setdefault(part, _Node())
        node.methods = methods
        node.route = tuple(path[1:].split("/"))
    return root


_ROOT: Final = _tree(_ROUTES)


def match(path: str) -> Match | None:
    """The route of a raw path, fixed parts before named ones, or None."""
    if not path.startswith("/"):
        return None
    parts = path[1:].split("/")
    if parts[:2] == ["api", "v1"] and len(path) > len("/api/v1/"):
        return Match(dict.fromkeys(_V1, _V1_ROUTE))
    if parts[0] == "docs" and len(parts) > 1:
        return Match({"GET": _DOCS_ROUTE})
    node = _walk(_ROOT, parts, 0)
    if node is None:
        return None
    raw = {name[1:-1]: part for name, part in zip(node.route, parts, strict=True) if name[0] == "{"}
    return Match(node.methods, tuple(part.strip("{}") for part in node.route), raw)


def _walk(node: _Node, parts: list[str], at: int) -> _Node | None:
    if at == len(parts):
        return node if node.methods else None
    part = parts[at]
    fixed = node.fixed.get(part)
    found = _walk(fixed, parts, at + 1) if fixed is not None else None
    # As in axum, a name in the middle of a path may be empty, but not at its end.
    if found is None and node.named is not None and (part or at + 1 < len(parts)):
        found = _walk(node.named, parts, at + 1)
    return found


def create_app(service: Service) -> web.Application:
    """The application of one node; more routes may be added to it before it is started."""
    forwarder = Forwarder()

    async def dispatch(request: web.Request) -> web.StreamResponse:
        target = request.raw_path
        if not target.startswith("/"):
            target = request.rel_url.raw_path_qs  # a proxy's form, with the host in it
        path, _, query = target.partition("?")
        found = match(path)
        if found is None:
            return empty_response(404)
        method = request.method
        route = found.methods.get(method)
        if route is None and method == "HEAD":
            route = found.methods.get("GET")
        if route is None:
            return empty_response(405, {"Allow": _allowed(found.methods)})
        parameters = decode_parameters(found.raw)
        if route.body and not _is_json(request.headers.get("Content-Type")):
            raise Refusal(415, "ChromaError", "Expected request with `Content-Type: application/json`")
        try:
            body = await request.read() if route.body else b""
        except web.HTTPRequestEntityTooLarge:
            if route.streamed:
                return bare_response(413, b"Payload too large")
            message = "Failed to buffer the request body: length limit exceeded"
            raise Refusal(413, "ChromaError", message) from None
        exchange = Exchange(
            method,
            target,
            query,
            found.route,
            parameters,
            request.headers,
            body,
            service,
            forwarder,
        )
        return await _answer(exchange, route)

    @web.middleware
    async def errors(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            response = await handler(request)
        except ClusterError as error:
            response = error_response(error.status, error.error, error.message, {})
        except web.HTTPException as error:
            response = empty_response(error.status)
        except Exception as error:
            if isinstance(error, ConnectionResetError) and _hung_up(request):
                log.debug("%s %s: the client hung up before it had its answer", request.method, request.path)
                return empty_response(_CLIENT_CLOSED_REQUEST)
            log.exception("%s %s failed", request.method, request.path)
            message = f"Node {service.node_id} failed on this request; its log says why."
            response = error_response(500, "InternalError", message, {})
        if not response.prepared:
            if response.status >= 400:
                response.headers.setdefault(_TRACE_ID, _NO_TRACE)
            # What was forwarded names the node that answered already.
            response.headers.setdefault(headers.NODE, service.node_id)
            leader = service.leader_id()
            if leader is not None:
                response.headers.setdefault(headers.LEADER, leader)
        return response

    async def close(_: web.Application) -> AsyncGenerator[None]:
        yield
        await forwarder.close()

    # One byte more than allowed: aiohttp refuses a body that reaches its limit.
    app = web.Application(middlewares=[errors], client_max_size=service.max_request_bytes + 1)
    app.router.add_route("*", "/{path:.*}", dispatch)
    app.on_response_prepare.append(_strip)
    app.cleanup_ctx.append(close)
    return app


async def _answer(exchange: Exchange, route: Route) -> web.StreamResponse:
    try:
        return await exchange.led(route.handle) if route.leads else await route.handle(exchange)
    except Undecodable:
        return await exchange.refuse()
    except ClusterError as error:
        # Here and not in the middleware, for the log index that was learned on the way.
        return error_response(error.status, error.error, error.message, exchange.answer_headers)


async def _strip(request: web.Request, response: web.StreamResponse) -> None:
    del request
    if response.get(UNTYPED):
        response.headers.popall("Content-Type", None)
    response.headers.popall("Server", None)


def _hung_up(request: web.Request) -> bool:
    """Whether there is nobody left to answer."""
    return request.transport is None or request.transport.is_closing()


def _allowed(methods: dict[str, Route]) -> str:
    """As axum lists them: a GET answers HEAD too."""
    names: list[str] = []
    for method in methods:
        names.append(method)
        if method == "GET" and "HEAD" not in methods:
            names.append("HEAD")
    return ",".join(names)


def _is_json(content_type: str | None) -> bool:
    if content_type is None:
        return True
    essence = content_type.partition(";")[0].strip().lower()
    return essence == "application/json" or (essence.startswith("application/") and essence.endswith("+json"))
