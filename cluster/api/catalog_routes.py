"""Routes of tenants, databases and collections."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import TYPE_CHECKING, Any

import orjson

from cluster.api.bodies import CollectionChange
from cluster.api.decode import (
    decode_collection_change,
    decode_name,
    decode_new_collection,
    decode_page,
)
from cluster.api.limits import RESOURCE_BYTES, TENANT_BYTES
from cluster.api.names import (
    check_database_name,
    invalid,
    name_problem,
    no_collection,
    parse_collection_id,
    parse_uuid,
)
from cluster.api.settings import are_unusual, check_settings
from cluster.api.wording import ask, ask_with_collection
from cluster.chroma.oracle import COLLECTIONS
from cluster.embedding.policy import check_configuration
from cluster.errors import Refusal
from cluster.reads import Level
from cluster.state.commands import (
    CreateCollection,
    CreateDatabase,
    CreateTenant,
    DeleteCollection,
    DeleteDatabase,
    UpdateCollection,
    UpdateTenant,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import web

    from cluster.api.bodies import NewCollection, Page
    from cluster.api.exchange import Exchange
    from cluster.chroma.interface import Engine
    from cluster.chroma.oracle import OracleAnswer

# ------------------------------------------------------------------------------------ tenants


async def create_tenant(exchange: Exchange) -> web.StreamResponse:
    name = decode_name(exchange.request.body, limit=TENANT_BYTES)
    refusal = await asyncio.to_thread(exchange.service.scratch.judge_create_tenant, name)
    if refusal is not None:
        raise refusal
    return await exchange.outcome(CreateTenant(name))


async def get_tenant(exchange: Exchange) -> web.StreamResponse:
    name = exchange.request.parameters["tenant_name"]
    if not await exchange.look_up(None, lambda catalog: catalog.has_tenant(name)):
        raise Refusal(404, "NotFoundError", f"Tenant [{name}] not found")
    # A single Chroma takes a resource name and forgets it.
    return exchange.json({"name": name, "resource_name": None})


async def update_tenant(exchange: Exchange) -> web.StreamResponse:
    resource_name = decode_name(exchange.request.body, "resource_name", RESOURCE_BYTES)
    return await exchange.outcome(UpdateTenant(exchange.request.parameters["tenant_name"], resource_name))


# ---------------------------------------------------------------------------------- databases


async def create_database(exchange: Exchange) -> web.StreamResponse:
    name = decode_name(exchange.request.body)
    problem = name_problem(name)
    if problem is not None:
        raise invalid(problem)
    return await exchange.outcome(
        CreateDatabase(exchange.request.parameters["tenant"], name, str(uuid.uuid4()))
    )


async def list_databases(exchange: Exchange) -> web.StreamResponse:
    page = decode_page(exchange.request.query)
    tenant = exchange.request.parameters["tenant"]
    found = await exchange.look_up(None, lambda catalog: catalog.databases(tenant))
    shown = [_database(one.database_id, one.name, one.tenant) for one in _cut(found, page)]
    return exchange.json(shown)


async def get_database(exchange: Exchange) -> web.StreamResponse:
    tenant, name = exchange.request.parameters["tenant"], exchange.request.parameters["database"]
    check_database_name(name)
    found = await exchange.look_up(None, lambda catalog: catalog.database(tenant, name))
    if found is None:
        raise Refusal(404, "NotFoundError", f"Database [{name}] not found. Are you sure it exists?")
    return exchange.json(_database(found.database_id, found.name, found.tenant))


async def delete_database(exchange: Exchange) -> web.StreamResponse:
    return await exchange.outcome(
        DeleteDatabase(exchange.request.parameters["tenant"], exchange.request.parameters["database"])
    )


# -------------------------------------------------------------------------------- collections


async def create_collection(exchange: Exchange) -> web.StreamResponse:
    wanted = await exchange.work(decode_new_collection, exchange.request.body)
    for given in (wanted.configuration, wanted.schema):
        if (refusal := check_configuration(given)) is not None:
            raise refusal
    refusal = await asyncio.to_thread(_judge_creation, exchange, wanted)
    if refusal is not None:
        return _worded(exchange, await ask(exchange), refusal)
    check_database_name(exchange.request.parameters["database"])
    given = (wanted.metadata, wanted.configuration, wanted.schema)
    if (refusal := check_settings(*given)) is not None:
        raise refusal
    if (
        are_unusual(*given)
        and (refusal := await asyncio.to_thread(_try_creation, exchange, wanted)) is not None
    ):
        raise refusal
    return await exchange.outcome(
        CreateCollection(
            exchange.request.parameters["tenant"],
            exchange.request.parameters["database"],
            wanted.name,
            str(uuid.uuid4()),
            wanted.get_or_create,
            wanted.metadata,
            wanted.configuration,
            wanted.schema,
        ),
        lambda collection_id: _as_created(exchange, wanted.name, collection_id),
    )


async def _as_created(exchange: Exchange, name: str, collection_id: str) -> dict[str, Any]:
    """What Chroma shows of a collection that this request created and another deleted at once."""
    oracle = exchange.service.oracle
    await oracle.ask("DELETE", f"{COLLECTIONS}/{name}")
    answer = await ask(exchange)
    await oracle.ask("DELETE", f"{COLLECTIONS}/{name}")
    if answer is None or answer.status != 200:
        raise no_collection(collection_id)
    parameters = exchange.request.parameters
    own = {"id": collection_id, "tenant": parameters["tenant"], "database": parameters["database"]}
    return {**orjson.loads(answer.body), **own}


async def list_collections(exchange: Exchange) -> web.StreamResponse:
    page = decode_page(exchange.request.query)
    tenant, database = exchange.request.parameters["tenant"], exchange.request.parameters["database"]
    check_database_name(database)
    catalog = exchange.service.catalog

    def read(engine: Engine) -> list[dict[str, Any]]:
        if page.limit is None and page.offset == 0:
            return engine.collections(tenant, database)
        wanted = _cut(catalog.collections(tenant, database), page)
        return [one for entry in wanted if (one := _collection(engine, entry.collection_id)) is not None]

    return exchange.json(await exchange.read(None, read))


async def count_collections(exchange: Exchange) -> web.StreamResponse:
    tenant, database = exchange.request.parameters["tenant"], exchange.request.parameters["database"]
    check_database_name(database)
    found = await exchange.look_up(None, lambda catalog: catalog.collections(tenant, database))
    return exchange.json(len(found))


async def get_collection(exchange: Exchange) -> web.StreamResponse:
    """By name, though the route calls it `collection_id`."""
    parameters = exchange.request.parameters
    tenant, database, name = parameters["tenant"], parameters["database"], parameters["collection_id"]
    check_database_name(database)
    catalog = exchange.service.catalog

    def read(engine: Engine) -> dict[str, Any] | None:
        entry = catalog.collection_named(tenant, database, name)
        return None if entry is None else _collection(engine, entry.collection_id)

    return _found(exchange, await exchange.read(None, read), name)


async def get_collection_by_id(exchange: Exchange) -> web.StreamResponse:
    parameters = exchange.request.parameters
    tenant, database = parameters["tenant"], parameters["database"]
    check_database_name(database)
    collection_id = parse_uuid(parameters["collection_id"])
    if collection_id is None:
        raise invalid("Validation error: collection_id: Invalid collection ID format, expected UUID")
    catalog = exchange.service.catalog

    def read(engine: Engine) -> dict[str, Any] | None:
        entry = catalog.collection(collection_id)
        if entry is None or (entry.tenant, entry.database) != (tenant, database):
            return None
        return _collection(engine, collection_id)

    return _found(exchange, await exchange.read(None, read), collection_id)


async def update_collection(exchange: Exchange) -> web.StreamResponse:
    change = await exchange.work(decode_collection_change, exchange.request.body)
    if (refusal := check_configuration(change.new_configuration)) is not None:
        raise refusal
    if change.new_configuration is not None:
        # Chroma reads all of the body before it looks at the path.
        alone = CollectionChange(None, None, change.new_configuration)
        if await asyncio.to_thread(_judge_change, exchange, None, alone) is not None:
            answer = await ask(exchange)
            if answer is not None and answer.status == 422:
                return exchange.passed_on(answer)
    check_database_name(exchange.request.parameters["database"])
    collection_id = parse_collection_id(exchange.request.parameters["collection_id"])
    current, _ = await exchange.service.read(
        Level.LINEARIZABLE, None, None, collection_id, lambda engine: _collection(engine, collection_id)
    )
    refusal = None
    if current is not None:
        refusal = await asyncio.to_thread(_judge_change, exchange, current, change)
    # Else the log refuses, or knows the outcome that this key had while there was a collection.
    if refusal is not None:
        return _worded(exchange, await ask_with_collection(exchange), refusal)
    if (refusal := check_settings(change.new_metadata, change.new_configuration)) is not None:
        raise refusal
    if current is not None and are_unusual(change.new_metadata, change.new_configuration):
        refusal = await asyncio.to_thread(_try_change, exchange, current, change)
        if refusal is not None:
            raise refusal
    return await exchange.outcome(
        UpdateCollection(collection_id, change.new_name, change.new_metadata, change.new_configuration)
    )


async def delete_collection(exchange: Exchange) -> web.StreamResponse:
    parameters = exchange.request.parameters
    check_database_name(parameters["database"])
    return await exchange.outcome(
        DeleteCollection(parameters["tenant"], parameters["database"], parameters["collection_id"])
    )


async def fork_collection(exchange: Exchange) -> web.StreamResponse:
    decode_name(exchange.request.body, "new_name")
    check_database_name(exchange.request.parameters["database"])
    check_single_region(exchange, "forking")
    await exchange.find(parse_collection_id(exchange.request.parameters["collection_id"]))
    raise Refusal(501, "ChromaError", "Collection forking is unsupported for local chroma")


async def fork_count(exchange: Exchange) -> web.StreamResponse:
    await _require(exchange)
    raise Refusal(501, "ChromaError", "Count forks is unsupported for local chroma")


async def indexing_status(exchange: Exchange) -> web.StreamResponse:
    await _require(exchange)
    raise Refusal(500, "InternalError", "Method scout_logs is not implemented")


# ------------------------------------------------------------------------------------ helpers


def check_single_region(exchange: Exchange, feature: str) -> None:
    """Raises:
    Refusal: the database's name has a topology in front.
    """
    if "+" in exchange.request.parameters["database"]:
        raise invalid(f"multi-region databases do not support {feature}")


async def _require(exchange: Exchange) -> None:
    check_database_name(exchange.request.parameters["database"])
    collection_id = parse_collection_id(exchange.request.parameters["collection_id"])
    if await exchange.look_up(collection_id, lambda catalog: catalog.collection(collection_id)) is None:
        raise no_collection(collection_id)


def _judge_creation(exchange: Exchange, wanted: NewCollection) -> Refusal | None:
    return exchange.service.scratch.judge_create_collection(
        wanted.name, wanted.metadata, wanted.configuration, wanted.schema
    )


def _judge_change(
    exchange: Exchange, current: dict[str, Any] | None, change: CollectionChange
) -> Refusal | None:
    if change == CollectionChange(None, None, None):
        return None
    return exchange.service.scratch.judge_update_collection(
        current or {"schema": None}, change.new_name, change.new_metadata, change.new_configuration
    )


def _try_creation(exchange: Exchange, wanted: NewCollection) -> Refusal | None:
    return exchange.service.scratch.trial(wanted.configuration, wanted.schema, wanted.metadata)


def _try_change(exchange: Exchange, current: dict[str, Any], change: CollectionChange) -> Refusal | None:
    schema = None if current["schema"] is None else json.dumps(current["schema"])
    # A collection from before the limits may have settings that the change is to mend.
    return exchange.service.scratch.trial(None, schema, change.new_metadata, change.new_configuration)


def _worded(exchange: Exchange, answer: OracleAnswer | None, refusal: Refusal) -> web.StreamResponse:
    """Chroma's own words over HTTP for what the engine refuses, where it has them."""
    if answer is None or not answer.is_refusal:
        raise refusal
    return exchange.passed_on(answer)


def _collection(engine: Engine, collection_id: str) -> dict[str, Any] | None:
    try:
        return engine.collection(collection_id)
    except Refusal as refusal:
        if refusal.status != 404:
            raise
        return None


def _found(exchange: Exchange, collection: dict[str, Any] | None, wanted: str) -> web.StreamResponse:
    if collection is None:
        raise Refusal(404, "NotFoundError", f"Collection [{wanted}] does not exist")
    return exchange.json(collection)


def _database(database_id: str, name: str, tenant: str) -> dict[str, str]:
    return {"id": database_id, "name": name, "tenant": tenant}


def _cut(found: Sequence[Any], page: Page) -> Sequence[Any]:
    end = None if page.limit is None else page.offset + page.limit
    return found[page.offset : end]
