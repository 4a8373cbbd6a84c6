"""One API server of the Postgres system: `python -m evaluation.systems.postgres.api --config FILE`.

Answers carry `X-Chroma-Node`, the Postgres server that read or committed, and `X-Chroma-Api`, this process.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import orjson
from aiohttp import web

from cluster.api.fields import Undecodable
from cluster.api.headers import NODE
from cluster.api.request import decode_parameters
from cluster.errors import ClusterError, Refusal
from evaluation.systems.postgres import serving
from evaluation.systems.postgres.catalogue import Judge
from evaluation.systems.postgres.connection import Pool
from evaluation.systems.postgres.handlers import Answer, Api, Request
from evaluation.systems.postgres.routing import Discovering, Readers, Supervised
from evaluation.systems.postgres.writing import Rejected

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

log = logging.getLogger(__name__)

Handler: TypeAlias = "Callable[[Request], Awaitable[Answer]]"

_API: Final = "X-Chroma-Api"
#: What Chroma sends with an error where nothing is traced.
_NO_TRACE: Final = "0" * 32
_MAX_BODY_BYTES: Final = 40 * 1024 * 1024
_TENANTS: Final = "/api/v2/tenants"
_DATABASES: Final = f"{_TENANTS}/{{tenant}}/databases"
_DATABASE: Final = f"{_DATABASES}/{{database}}"
_COLLECTIONS: Final = f"{_DATABASE}/collections"
_COLLECTION: Final = f"{_COLLECTIONS}/{{collection_id}}"


@dataclass(frozen=True, slots=True)
class Settings:
    """What one API server is told. `pgbouncer` and all addresses are host:port."""

    name: str
    listen: str
    local: str
    """The Postgres server beside it."""
    members: tuple[str, ...]
    pgbouncer: str
    supervisor: str | None
    """Base URL; None: nobody says who is primary, it looks for itself (not fenced)."""
    lease_s: float
    reads: str = "spread"
    deadline_s: float = 5.0
    attempt_s: float = 1.0

    def save(self, path: Path) -> None:
        path.write_bytes(orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2))

    @staticmethod
    def load(path: Path) -> Settings:
        raw: dict[str, Any] = orjson.loads(path.read_bytes())
        raw["members"] = tuple(raw["members"])
        return Settings(**raw)


def routes(api: Api) -> list[tuple[str, str, Handler]]:
    return [
        ("GET", "/api/v2", api.heartbeat),
        ("GET", "/api/v2/heartbeat", api.heartbeat),
        ("GET", "/api/v2/healthcheck", api.healthcheck),
        ("GET", "/api/v2/version", api.version),
        ("GET", "/api/v2/pre-flight-checks", api.pre_flight_checks),
        ("GET", "/api/v2/auth/identity", api.identity),
        ("POST", "/api/v2/reset", api.missing),
        ("POST", _TENANTS, api.create_tenant),
        ("GET", f"{_TENANTS}/{{tenant_name}}", api.get_tenant),
        ("GET", _DATABASES, api.list_databases),
        ("POST", _DATABASES, api.create_database),
        ("GET", _DATABASE, api.get_database),
        ("DELETE", _DATABASE, api.delete_database),
        ("POST", _COLLECTIONS, api.create_collection),
        ("GET", _COLLECTIONS, api.list_collections),
        ("GET", f"{_DATABASE}/collections_count", api.count_collections),
        ("GET", f"{_COLLECTIONS}/by-id/{{collection_id}}", api.get_collection_by_id),
        ("GET", _COLLECTION, api.get_collection),
        ("PUT", _COLLECTION, api.update_collection),
        ("DELETE", _COLLECTION, api.delete_collection),
        ("POST", f"{_COLLECTION}/add", api.add),
        ("POST", f"{_COLLECTION}/upsert", api.upsert),
        ("POST", f"{_COLLECTION}/update", api.update),
        ("POST", f"{_COLLECTION}/delete", api.delete),
        ("POST", f"{_COLLECTION}/get", api.get),
        ("POST", f"{_COLLECTION}/query", api.query),
        ("GET", f"{_COLLECTION}/count", api.count),
        ("POST", f"{_COLLECTION}/search", api.missing),
        ("POST", f"{_COLLECTION}/fork", api.missing),
    ]


def create_app(api: Api, name: str) -> web.Application:
    app = web.Application(client_max_size=_MAX_BODY_BYTES + 1)
    for method, path, handler in routes(api):
        app.router.add_route(method, path, _served(handler, name))
    app.router.add_route("*", "/{path:.*}", _nothing)
    return app


async def _nothing(raw: web.Request) -> web.StreamResponse:
    """Neither body nor type, as Chroma answers what it has no route for."""
    response = web.Response(status=404, headers={"chroma-trace-id": _NO_TRACE})
    del raw
    return response


def _served(handler: Handler, name: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def serve(raw: web.Request) -> web.StreamResponse:
        request = Request({}, raw.rel_url.raw_query_string, b"")
        try:
            request.body = await raw.read() if raw.can_read_body else b""
            request.parameters = decode_parameters(raw.match_info)
            answer = await handler(request)
        except ClusterError as error:
            answer = _failed(error)
        except Undecodable:
            answer = _failed(Refusal(422, "InvalidArgumentError", "This is not in the form of a request."))
        except Rejected as error:
            answer = _failed(Refusal(500, "InternalError", f"Postgres refuses this: {error}"))
        except web.HTTPException:
            raise
        except Exception:
            log.exception("%s %s failed", raw.method, raw.path)
            answer = _failed(Refusal(500, "InternalError", f"{name} failed on this; its log says why."))
        headers = {_API: name}
        if request.node is not None:
            headers[NODE] = request.node
        if answer.status >= 400:
            headers["chroma-trace-id"] = _NO_TRACE
        return web.Response(
            body=answer.body, status=answer.status, content_type="application/json", headers=headers
        )

    return serve


def _failed(error: ClusterError) -> Answer:
    return Answer(orjson.dumps({"error": error.error, "message": error.message}), error.status)


async def serve(settings: Settings) -> None:
    """Until SIGTERM or SIGINT."""
    pools = {member: Pool(settings.pgbouncer, member) for member in settings.members}
    if settings.supervisor is None:
        route = Discovering(pools, settings.local)
    else:
        route = Supervised(settings.name, settings.supervisor, settings.lease_s)
    api = Api(
        pools,
        route,
        Readers(settings.members, settings.local, settings.reads),
        Judge(),
        settings.deadline_s,
        settings.attempt_s,
    )
    try:
        await serving.answer(create_app(api, settings.name), settings.listen, route.run())
    finally:
        for pool in pools.values():
            await pool.close()


def main() -> None:
    serving.run(__doc__, lambda path: serve(Settings.load(path)))


if __name__ == "__main__":
    main()
