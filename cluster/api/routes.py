"""Where a path leads: Chroma's routes as `chroma run` has them, and what answers each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from cluster.api import catalog_routes, record_routes, system_routes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

    from cluster.api.exchange import Exchange

Handler: TypeAlias = "Callable[[Exchange], Awaitable[web.StreamResponse]]"


@dataclass(frozen=True, slots=True)
class Route:
    """What answers one method on one path.

    `body`: whether there is one, and with `streamed` that Chroma words its limit differently.
    `public`: it tells so little that everybody may ask it, also of a node that serves members only.
    `leads`: a write, to be handled by the leader only, after `admit` has not refused it on any node.
    """

    handle: Handler
    body: bool = False
    streamed: bool = False
    leads: bool = False
    public: bool = False
    admit: Callable[[Exchange], None] | None = None


_DATABASE: Final = "/api/v2/tenants/{tenant}/databases/{database}"
_COLLECTION: Final = f"{_DATABASE}/collections/{{collection_id}}"
_POST: Final = "POST"

#: In the order in which Chroma names the methods in `Allow`.
ROUTES: Final[dict[str, dict[str, Route]]] = {
    "/api/v2": {"GET": Route(system_routes.heartbeat, public=True)},
    "/api/v2/healthcheck": {"GET": Route(system_routes.healthcheck, public=True)},
    "/api/v2/heartbeat": {"GET": Route(system_routes.heartbeat, public=True)},
    "/api/v2/pre-flight-checks": {"GET": Route(system_routes.pre_flight_checks)},
    "/api/v2/reset": {_POST: Route(system_routes.reset, leads=True, admit=system_routes.check_reset)},
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


_ROOT: Final = _tree(ROUTES)


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


def allowed(methods: dict[str, Route]) -> str:
    """As axum lists them: a GET answers HEAD too."""
    names: list[str] = []
    for method in methods:
        names.append(method)
        if method == "GET" and "HEAD" not in methods:
            names.append("HEAD")
    return ",".join(names)
