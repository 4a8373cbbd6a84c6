"""Chroma's own words about a request: it is put to the oracle, a real `chroma run` that is empty."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from cluster.api.names import parse_uuid
from cluster.errors import Refusal

if TYPE_CHECKING:
    from aiohttp import web

    from cluster.api.exchange import Exchange
    from cluster.api.request import Request
    from cluster.chroma.oracle import OracleAnswer


async def refuse(exchange: Exchange) -> web.Response:
    """The refusal of a request that the decoder does not read, in Chroma's words."""
    request = exchange.request
    answer = await ask(exchange)
    if answer is not None and answer.status == 404 and "collection_id" in request.route:
        # The body is well-formed; what is wrong with it comes after the collection was found.
        collection_id = parse_uuid(request.parameters["collection_id"])
        if collection_id is not None:
            await exchange.find(collection_id)
            answer = await ask_with_collection(exchange)
    if answer is None or not answer.is_refusal:
        raise Refusal(
            400,
            "InvalidArgumentError",
            "This request is not in a form that this server reads. Nothing was changed. See its "
            "/openapi.json for the forms of requests.",
        )
    return exchange.passed_on(answer)


async def ask(exchange: Exchange) -> OracleAnswer | None:
    """What Chroma answers to this request when it has nothing but the default database."""
    return await _ask(exchange, None)


async def ask_with_collection(exchange: Exchange) -> OracleAnswer | None:
    """What Chroma answers to this request about a fresh, empty collection."""
    async with exchange.service.oracle.collection() as collection_id:
        return None if collection_id is None else await _ask(exchange, collection_id)


async def _ask(exchange: Exchange, collection_id: str | None) -> OracleAnswer | None:
    request = exchange.request
    return await exchange.service.oracle.ask(
        request.method,
        oracle_target(request, collection_id),
        request.body,
        request.headers.get("Content-Type"),
    )


def oracle_target(request: Request, collection_id: str | None = None) -> str:
    """The request's target with what exists in the oracle in place of what exists here."""
    values = dict(request.parameters)
    if "tenant" in values:
        values["tenant"] = "default_tenant"
    database = values.get("database", "")
    if len(database.encode()) >= 3 and "+" not in database:
        values["database"] = "default_database"
    if collection_id is not None:
        values["collection_id"] = collection_id
    parts = [values.get(part, part) for part in request.route]
    path = "/" + "/".join(quote(part, safe="") for part in parts)
    return f"{path}?{request.query}" if request.query else path
