"""Handlers of a collection's records."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cluster.api.decode import (
    check_read_level,
    decode_delete,
    decode_get,
    decode_query,
    decode_records,
)
from cluster.api.encode import encode, encode_neighbours, encode_records
from cluster.api.fields import Undecodable
from cluster.api.names import invalid, no_collection
from cluster.errors import Refusal
from cluster.state.commands import WriteRecords
from evaluation.systems.postgres import catalogue, records, writing
from evaluation.systems.postgres.api.about import NOT_HERE
from evaluation.systems.postgres.api.checks import (
    check_dimension,
    check_form,
    check_queries,
    check_records,
    collection_id_of,
)
from evaluation.systems.postgres.api.exchange import Reply
from evaluation.systems.postgres.filters import Parameters, Unreadable, condition
from evaluation.systems.postgres.values import Unstorable

if TYPE_CHECKING:
    from cluster.state.commands import WriteKind
    from evaluation.systems.postgres.api.access import Access
    from evaluation.systems.postgres.api.exchange import Request
    from evaluation.systems.postgres.api.judge import Judge
    from evaluation.systems.postgres.api.known import KnownCollections
    from evaluation.systems.postgres.catalogue import Collection
    from evaluation.systems.postgres.connection import Connection


class RecordHandlers:
    def __init__(self, access: Access, known: KnownCollections, judge: Judge) -> None:
        self._access = access
        self._known = known
        self._judge = judge

    async def add(self, request: Request) -> Reply:
        return await self._write_records("add", request)

    async def upsert(self, request: Request) -> Reply:
        return await self._write_records("upsert", request)

    async def update(self, request: Request) -> Reply:
        return await self._write_records("update", request)

    async def _write_records(self, kind: WriteKind, request: Request) -> Reply:
        given = decode_records(kind, request.body)
        collection_id = collection_id_of(request)
        if given.text_only and kind != "update":
            raise Undecodable  # nothing here makes vectors from documents
        collection = await self._known.find(request, collection_id)
        vectors = given.vectors
        dimension = vectors.dimension if vectors is not None else None
        known = collection.dimension
        check_form(given, known)
        check_dimension(known, dimension)
        check_records(given)
        reply = Reply(encode({}), 201 if kind == "add" else 200)
        if not given.ids:
            return reply
        command = WriteRecords(
            kind,
            collection_id,
            given.ids,
            dimension,
            vectors.rows if vectors is not None else None,
            given.metadatas,
            given.documents,
            given.uris,
        )
        try:
            if known is None and dimension is not None:
                await self._settle(request, collection, dimension)
            await self._access.write(request, lambda connection: records.write_records(connection, command))
        except writing.Rejected as rejected:
            raise self._known.refusal(rejected, collection_id) from None
        except Unstorable as error:
            raise invalid(str(error)) from None
        return reply

    async def _settle(self, request: Request, collection: Collection, dimension: int) -> None:
        """Fix the dimension of a collection that has none, in a transaction of its own, as Chroma does."""
        settled = await self._access.prepare(
            request, lambda connection: catalogue.settle_dimension(connection, collection, dimension)
        )
        if settled is None:
            self._known.forget(collection.id)
            raise no_collection(collection.id)
        self._known.forget(collection.id)
        check_dimension(settled, dimension)

    async def delete(self, request: Request) -> Reply:
        wanted = decode_delete(request.body)
        collection_id = collection_id_of(request)
        filtered = wanted.where is not None or wanted.where_document is not None
        problem: Refusal | None = None
        parameters = Parameters()
        where = "true"
        if filtered:
            try:
                where = await self._condition(wanted.where, wanted.where_document, parameters)
            except Refusal as refusal:
                problem = refusal
        elif wanted.ids is not None and not wanted.ids:
            problem = invalid("Validation error: ids, where: Either ids or where must be specified")
        elif wanted.limit is not None:
            problem = invalid(
                "Validation error: limit, where: limit can only be specified when a where clause is provided"
            )

        async def work(connection: Connection) -> int:
            if problem is not None or collection_id not in self._known:
                if await catalogue.find_by_id(connection, collection_id) is None:
                    raise no_collection(collection_id)
                if problem is not None:
                    raise problem
            if filtered:
                test = records.with_ids(where, parameters, wanted.ids)
                return await records.delete_found(connection, collection_id, test, parameters, wanted.limit)
            if wanted.ids:
                await records.delete_ids(connection, collection_id, wanted.ids)
            # Chroma counts the ids it was given, known or not.
            return len(wanted.ids or ())

        try:
            return Reply(encode({"deleted": await self._access.write(request, work)}))
        except writing.Rejected as rejected:
            raise self._known.refusal(rejected, collection_id) from None

    async def get(self, request: Request) -> Reply:
        wanted = decode_get(request.body)
        collection_id = collection_id_of(request)

        async def read(connection: Connection, _: Collection) -> bytes:
            parameters = Parameters()
            where = await self._condition(wanted.where, wanted.where_document, parameters)
            found = await records.get_records(
                connection,
                collection_id,
                where=records.with_ids(where, parameters, wanted.ids),
                parameters=parameters,
                limit=wanted.limit,
                offset=wanted.offset,
                include=wanted.include,
            )
            return encode_records(found, wanted.include)

        return Reply(await self._known.read(request, collection_id, read))

    async def query(self, request: Request) -> Reply:
        wanted = decode_query(request.body)
        collection_id = collection_id_of(request)
        rows = wanted.rows
        if rows is None:
            raise Undecodable  # nothing here makes vectors from texts

        async def read(connection: Connection, collection: Collection) -> bytes:
            check_queries(rows, collection.dimension)
            if collection.dimension is None:
                found = records.nothing_near([[] for _ in rows], wanted.include)
                return encode_neighbours(found, wanted.include)
            parameters = Parameters(None)
            where = await self._condition(wanted.where, wanted.where_document, parameters)
            found = await records.find_neighbours(
                connection,
                collection_id,
                rows,
                space=collection.space,
                n_results=wanted.n_results,
                where=records.with_ids(where, parameters, wanted.ids),
                parameters=parameters,
                include=wanted.include,
            )
            return encode_neighbours(found, wanted.include)

        return Reply(await self._known.read(request, collection_id, read, settled=True))

    async def count(self, request: Request) -> Reply:
        check_read_level(request.query)
        collection_id = collection_id_of(request)

        async def read(connection: Connection, _: Collection) -> int:
            return await records.count_records(connection, collection_id)

        return Reply(encode(await self._known.read(request, collection_id, read)))

    async def _condition(self, where: str | None, where_document: str | None, parameters: Parameters) -> str:
        """Raises:
        Refusal: as Chroma words it, or 501: one that Chroma takes and this server does not.
        """
        patterns: list[str] = []
        try:
            found, patterns = condition(where, where_document, parameters)
        except Unreadable:
            found = None
        if found is None or patterns:
            # Regular expressions have a syntax of their own in Chroma.
            refusal = await asyncio.to_thread(self._judge.filter, where, where_document)
            if refusal is not None:
                raise refusal
        if found is None:
            raise Refusal(501, "ChromaError", f"This filter is not supported. {NOT_HERE}")
        return found
