"""The HTTP server of one API server.

Answers carry `X-Chroma-Node`, the Postgres server that read or committed, and `X-Chroma-Api`, this process.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import orjson
from aiohttp import web

from cluster.api.fields import Undecodable
from cluster.api.headers import NODE
from cluster.api.request import decode_parameters
from cluster.errors import ClusterError, Refusal
from evaluation.systems.postgres import serving
from evaluation.systems.postgres.api.access import Access
from evaluation.systems.postgres.api.catalogue_handlers import CatalogueHandlers
from evaluation.systems.postgres.api.exchange import Reply, Request
from evaluation.systems.postgres.api.judge import Judge
from evaluation.systems.postgres.api.known import KnownCollections
from evaluation.systems.postgres.api.record_handlers import RecordHandlers
from evaluation.systems.postgres.api.routes import routes
from evaluation.systems.postgres.connection import Pool
from evaluation.systems.postgres.routing import Discovering, Readers, Supervised
from evaluation.systems.postgres.writing import Rejected

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from evaluation.systems.postgres.api.exchange import Handler
    from evaluation.systems.postgres.settings import ApiSettings

log = logging.getLogger(__name__)

_API: Final = "X-Chroma-Api"
#: What Chroma sends with an error where nothing is traced.
_NO_TRACE: Final = "0" * 32
_MAX_BODY_BYTES: Final = 40 * 1024 * 1024


def create_app(handlers: Iterable[tuple[str, str, Handler]], name: str) -> web.Application:
    app = web.Application(client_max_size=_MAX_BODY_BYTES + 1)
    for method, path, handler in handlers:
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


def _failed(error: ClusterError) -> Reply:
    return Reply(orjson.dumps({"error": error.error, "message": error.message}), error.status)


async def serve(settings: ApiSettings) -> None:
    """Until SIGTERM or SIGINT."""
    pools = {member: Pool(settings.pgbouncer, member) for member in settings.members}
    if settings.supervisor is None:
        route = Discovering(pools, settings.local)
    else:
        route = Supervised(settings.name, settings.supervisor, settings.lease_s)
    access = Access(
        pools,
        route,
        Readers(settings.members, settings.local, settings.reads),
        settings.deadline_s,
        settings.attempt_s,
    )
    known, judge = KnownCollections(access), Judge()
    handlers = routes(CatalogueHandlers(access, known, judge), RecordHandlers(access, known, judge))
    try:
        await serving.answer(create_app(handlers, settings.name), settings.listen, route.run())
    finally:
        for pool in pools.values():
            await pool.close()
