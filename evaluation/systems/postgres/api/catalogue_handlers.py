"""Handlers of tenants, databases and collections."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cluster.api.decode import decode_collection_change, decode_name, decode_new_collection, decode_page
from cluster.api.encode import encode
from cluster.api.names import invalid, name_problem, no_collection, parse_uuid
from cluster.errors import Refusal
from evaluation.systems.postgres import catalogue
from evaluation.systems.postgres.api.checks import collection_id_of, home_of
from evaluation.systems.postgres.api.exchange import Reply

if TYPE_CHECKING:
    from evaluation.systems.postgres.api.access import Access
    from evaluation.systems.postgres.api.exchange import Request
    from evaluation.systems.postgres.api.judge import Judge
    from evaluation.systems.postgres.api.known import KnownCollections


class CatalogueHandlers:
    def __init__(self, access: Access, known: KnownCollections, judge: Judge) -> None:
        self._access = access
        self._known = known
        self._judge = judge

    async def create_collection(self, request: Request) -> Reply:
        wanted = decode_new_collection(request.body)
        look = await asyncio.to_thread(
            self._judge.create, wanted.name, wanted.metadata, wanted.configuration, wanted.schema
        )
        tenant, database = home_of(request)
        found = await self._access.write(
            request,
            lambda connection: catalogue.create_collection(
                connection, tenant, database, wanted.name, look, get_or_create=wanted.get_or_create
            ),
        )
        return Reply(encode(found.rendered()))

    async def list_collections(self, request: Request) -> Reply:
        page = decode_page(request.query)
        home = home_of(request)
        found = await self._access.read(
            request, lambda connection: catalogue.list_collections(connection, *home, page.limit, page.offset)
        )
        return Reply(encode([one.rendered() for one in found]))

    async def count_collections(self, request: Request) -> Reply:
        home = home_of(request)
        count = await self._access.read(
            request, lambda connection: catalogue.count_collections(connection, *home)
        )
        return Reply(encode(count))

    async def get_collection(self, request: Request) -> Reply:
        """By name, though the route calls it `collection_id`."""
        home, name = home_of(request), request.parameters["collection_id"]
        found = await self._access.read(
            request, lambda connection: catalogue.find_by_name(connection, *home, name)
        )
        if found is None:
            raise Refusal(404, "NotFoundError", f"Collection [{name}] does not exist")
        return Reply(encode(found.rendered()))

    async def get_collection_by_id(self, request: Request) -> Reply:
        home = home_of(request)
        collection_id = parse_uuid(request.parameters["collection_id"])
        if collection_id is None:
            raise invalid("Validation error: collection_id: Invalid collection ID format, expected UUID")
        found = await self._access.read(
            request, lambda connection: catalogue.find_by_id(connection, collection_id)
        )
        if found is None or (found.tenant, found.database) != home:
            raise Refusal(404, "NotFoundError", f"Collection [{collection_id}] does not exist")
        return Reply(encode(found.rendered()))

    async def update_collection(self, request: Request) -> Reply:
        change = decode_collection_change(request.body)
        collection_id = collection_id_of(request)
        current = await self._access.prepare(
            request, lambda connection: catalogue.find_by_id(connection, collection_id)
        )
        if current is None:
            raise no_collection(collection_id)
        if (change.new_name, change.new_metadata, change.new_configuration) == (None, None, None):
            return Reply(encode({}))
        look = await asyncio.to_thread(
            self._judge.change, current, change.new_name, change.new_metadata, change.new_configuration
        )
        name = change.new_name or current.name
        await self._access.write(
            request, lambda connection: catalogue.change_collection(connection, current, name, look)
        )
        self._known.forget(collection_id)
        return Reply(encode({}))

    async def delete_collection(self, request: Request) -> Reply:
        home, name = home_of(request), request.parameters["collection_id"]
        collection_id = await self._access.write(
            request, lambda connection: catalogue.delete_collection(connection, *home, name)
        )
        self._known.forget(collection_id)
        return Reply(encode({}))

    async def create_tenant(self, request: Request) -> Reply:
        name = decode_name(request.body)
        refusal = await asyncio.to_thread(self._judge.tenant, name)
        if refusal is not None:
            raise refusal
        await self._access.write(request, lambda connection: catalogue.create_tenant(connection, name))
        return Reply(encode({}))

    async def get_tenant(self, request: Request) -> Reply:
        name = request.parameters["tenant_name"]
        if not await self._access.read(request, lambda connection: catalogue.has_tenant(connection, name)):
            raise Refusal(404, "NotFoundError", f"Tenant [{name}] not found")
        return Reply(encode({"name": name, "resource_name": None}))

    async def create_database(self, request: Request) -> Reply:
        name, tenant = decode_name(request.body), request.parameters["tenant"]
        problem = name_problem(name)
        if problem is not None:
            raise invalid(problem)
        await self._access.write(
            request, lambda connection: catalogue.create_database(connection, tenant, name)
        )
        return Reply(encode({}))

    async def list_databases(self, request: Request) -> Reply:
        page, tenant = decode_page(request.query), request.parameters["tenant"]
        found = await self._access.read(
            request, lambda connection: catalogue.list_databases(connection, tenant, page.limit, page.offset)
        )
        return Reply(encode(found))

    async def get_database(self, request: Request) -> Reply:
        tenant, name = home_of(request)
        found = await self._access.read(
            request, lambda connection: catalogue.find_database(connection, tenant, name)
        )
        if found is None:
            raise Refusal(404, "NotFoundError", f"Database [{name}] not found. Are you sure it exists?")
        return Reply(encode(found))

    async def delete_database(self, request: Request) -> Reply:
        tenant, name = request.parameters["tenant"], request.parameters["database"]
        await self._access.write(
            request, lambda connection: catalogue.delete_database(connection, tenant, name)
        )
        self._known.forget_all()
        return Reply(encode({}))
