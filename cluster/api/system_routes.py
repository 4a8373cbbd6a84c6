"""Routes about the server itself: alive, ready, version, identity, reset, its own description."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from cluster.api.names import invalid
from cluster.api.responses import empty_response
from cluster.errors import Refusal, Unavailable
from cluster.state.commands import Reset
from cluster.state.work import MAX_BATCH_SIZE

if TYPE_CHECKING:
    from aiohttp import web

    from cluster.api.exchange import Exchange
    from cluster.chroma.oracle import OracleAnswer

#: What a single Chroma 1.5.9 says of itself, whatever its package's version is.
VERSION: Final = "1.0.0"
_IDENTITY: Final[dict[str, Any]] = {
    "user_id": "",
    "tenant": "default_tenant",
    "databases": ["default_database"],
}
_DOCUMENTS: dict[str, OracleAnswer] = {}


async def heartbeat(exchange: Exchange) -> web.StreamResponse:
    return exchange.json({"nanosecond heartbeat": time.time_ns()})


async def healthcheck(exchange: Exchange) -> web.StreamResponse:
    """503 from a node that has stopped serving, as Chroma's while its executor is not ready."""
    ready = exchange.service.reason is None
    body = {"is_executor_ready": ready, "is_log_client_ready": ready}
    return exchange.json(body, 200 if ready else 503)


async def version(exchange: Exchange) -> web.StreamResponse:
    return exchange.json(VERSION)


async def pre_flight_checks(exchange: Exchange) -> web.StreamResponse:
    return exchange.json({"max_batch_size": MAX_BATCH_SIZE, "supports_base64_encoding": True})


async def identity(exchange: Exchange) -> web.StreamResponse:
    return exchange.json(_IDENTITY)


def check_reset(exchange: Exchange) -> None:
    """Raises:
    Refusal: 403, this node was not configured to forget everything when it is told to.
    """
    if not exchange.service.allow_reset:
        raise Refusal(403, "ChromaError", "Reset is disabled by config")


async def reset(exchange: Exchange) -> web.StreamResponse:
    return await exchange.outcome(Reset())


async def v1(exchange: Exchange) -> web.StreamResponse:
    message = "The v1 API is deprecated. Please use /v2 apis"
    return exchange.json({"error": "Unimplemented", "message": message}, 410)


async def documents(exchange: Exchange) -> web.StreamResponse:
    """`/openapi.json` and `/docs/*`: Chroma's own, from the oracle, which is asked once for each."""
    answer = _DOCUMENTS.get(exchange.request.target)
    if answer is None:
        answer = await exchange.service.oracle.ask("GET", exchange.request.target)
        if answer is None:
            raise Unavailable("The description of the API cannot be had at the moment; try again.")
        if answer.status == 200 and not exchange.request.query:
            _DOCUMENTS[exchange.request.target] = answer
    if answer.status == 404:
        return empty_response(404)
    return exchange.passed_on(answer)


async def crn(exchange: Exchange) -> web.StreamResponse:
    """A single Chroma keeps no resource names: it hangs up on a well-formed one."""
    parts = exchange.request.parameters["crn"].split(":")
    if len(parts) != 3 or not all(parts):
        raise invalid(
            "Validation error: crn: CRN must be in the format <tenant_resource_name>:<database_name>:"
            "<collection_name> with non-empty parts"
        )
    raise Refusal(501, "ChromaError", "Collections cannot be found by resource name in a local Chroma")
