"""Chroma's routes over Postgres: decode as the cluster's own API does, one transaction, encode as it does."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

import asyncpg
import numpy as np

from cluster.api.decode import (
    RecordsBody,
    check_read_level,
    decode_collection_change,
    decode_delete,
    decode_get,
    decode_name,
    decode_new_collection,
    decode_page,
    decode_query,
    decode_records,
)
from cluster.api.encode import encode, encode_neighbours, encode_records
from cluster.api.fields import ASK, Undecodable
from cluster.api.names import (
    check_database_name,
    invalid,
    name_problem,
    no_collection,
    parse_collection_id,
    parse_uuid,
)
from cluster.errors import OutcomeUnknown, Refusal, Unavailable
from cluster.state.commands import WriteRecords
from cluster.state.work import MAX_BATCH_SIZE
from evaluation.systems.postgres import catalogue, records, writing
from evaluation.systems.postgres.connection import BROKEN
from evaluation.systems.postgres.filters import Parameters, Unreadable, condition
from evaluation.systems.postgres.values import Unstorable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from cluster.state.commands import WriteKind
    from evaluation.systems.postgres.catalogue import Collection, Judge
    from evaluation.systems.postgres.connection import Connection, Pool
    from evaluation.systems.postgres.routing import Readers, Route

T = TypeVar("T")

#: What a single Chroma 1.5.9 says of itself.
VERSION: Final = "1.0.0"
_IDENTITY: Final = {"user_id": "", "tenant": "default_tenant", "databases": ["default_database"]}
_UNREADABLE_REGEX: Final = "2201B"
_NOT_HERE: Final = "This server keeps records in Postgres and does not have this. Nothing was changed."


@dataclass(slots=True)
class Request:
    """`parameters` are the named parts of the path; `node` is set to the server that answered."""

    parameters: Mapping[str, str]
    query: str
    body: bytes
    node: str | None = None


@dataclass(slots=True)
class Answer:
    """`body` is JSON."""

    body: bytes
    status: int = 200


@dataclass(slots=True)
class Api:
    """All handlers. They raise `cluster.errors.ClusterError`s and `Undecodable`."""

    pools: Mapping[str, Pool]
    route: Route
    readers: Readers
    judge: Judge
    deadline_s: float
    attempt_s: float
    """How long one server may take over a read before the next one is asked."""
    _collections: dict[str, Collection] = field(default_factory=dict[str, "Collection"])

    # ------------------------------------------------------------------------ writes and reads

    async def _write(self, request: Request, work: Callable[[Connection], Awaitable[T]]) -> T:
        primary = self.route.primary()
        if primary is None:
            raise Unavailable("No primary is known at the moment. Nothing was changed; send it again.")
        request.node = primary.member
        return await writing.write(
            self.pools[primary.member],
            work,
            deadline_s=self.deadline_s,
            still_primary=lambda: self.route.holds(primary),
        )

    async def _prepare(self, request: Request, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Something on the primary before the write itself, which is surely not done if this fails."""
        try:
            return await self._write(request, work)
        except OutcomeUnknown as error:
            raise Unavailable(f"Nothing was changed: before the write began, {error.message}") from None

    async def _read(self, request: Request, work: Callable[[Connection], Awaitable[T]]) -> T:
        """From the first server that answers."""
        end = time.monotonic() + self.deadline_s
        why: BaseException | None = None
        for member in self.readers.order(self.route, time.monotonic()):
            left = end - time.monotonic()
            if left <= 0:
                break
            try:
                async with self.pools[member].use(min(self.attempt_s, left)) as connection:
                    request.node = member
                    return await work(connection)
            except asyncpg.PostgresError as error:
                why = error
                if writing.undone(error) is not None and error.sqlstate not in writing.REPEATABLE:
                    raise
            except BROKEN as error:
                why = error
            self.readers.avoid(member, time.monotonic())
        raise Unavailable(f"No Postgres server answered the read ({why!r}). Try again.")

    async def _of_collection(
        self,
        request: Request,
        collection_id: str,
        work: Callable[[Connection, Collection], Awaitable[T]],
        *,
        settled: bool = False,
    ) -> T:
        """Read from a collection as one server knows it; `settled`: its dimension matters."""

        async def read(connection: Connection) -> T:
            collection = self._collections.get(collection_id)
            if collection is None or (settled and collection.dimension is None):
                collection = await catalogue.find_by_id(connection, collection_id)
                if collection is None:
                    raise no_collection(collection_id)
                self._collections[collection_id] = collection
            return await work(connection, collection)

        try:
            return await self._read(request, read)
        except asyncpg.PostgresError as error:
            raise self._refusal(error, collection_id) from None

    def _refusal(self, error: BaseException, collection_id: str) -> Exception:
        sqlstate = getattr(error, "sqlstate", None)
        if sqlstate == writing.UNDEFINED_TABLE:
            self._collections.pop(collection_id, None)
            return no_collection(collection_id)
        if sqlstate == _UNREADABLE_REGEX:
            return Refusal(501, "ChromaError", f"Postgres does not read this regular expression: {error}")
        return Refusal(500, "InternalError", f"Postgres refuses this: {error}")

    # --------------------------------------------------------------------------------- records

    async def add(self, request: Request) -> Answer:
        return await self._write_records("add", request)

    async def upsert(self, request: Request) -> Answer:
        return await self._write_records("upsert", request)

    async def update(self, request: Request) -> Answer:
        return await self._write_records("update", request)

    async def _write_records(self, kind: WriteKind, request: Request) -> Answer:
        given = decode_records(kind, request.body)
        collection_id = _collection_id(request)
        if given.text_only and kind != "update":
            raise Undecodable  # nothing here makes vectors from documents
        collection = self._collections.get(collection_id)
        if collection is None:
            collection = await self._prepare(
                request, lambda connection: catalogue.find_by_id(connection, collection_id)
            )
            if collection is None:
                raise no_collection(collection_id)
            self._collections[collection_id] = collection
        vectors = given.vectors
        dimension = vectors.dimension if vectors is not None else None
        known = collection.dimension
        _check_form(given, known)
        _check_dimension(known, dimension)
        _check_records(given)
        answer = Answer(encode({}), 201 if kind == "add" else 200)
        if not given.ids:
            return answer
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
            await self._write(request, lambda connection: records.write_records(connection, command))
        except writing.Rejected as rejected:
            raise self._refusal(rejected, collection_id) from None
        except Unstorable as error:
            raise invalid(str(error)) from None
        return answer

    async def _settle(self, request: Request, collection: Collection, dimension: int) -> None:
        """Fix the dimension of a collection that has none, in a transaction of its own, as Chroma does."""
        settled = await self._prepare(
            request, lambda connection: catalogue.settle_dimension(connection, collection, dimension)
        )
        if settled is None:
            self._collections.pop(collection.id, None)
            raise no_collection(collection.id)
        self._collections.pop(collection.id, None)
        _check_dimension(settled, dimension)

    async def delete(self, request: Request) -> Answer:
        wanted = decode_delete(request.body)
        collection_id = _collection_id(request)
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
            if problem is not None or collection_id not in self._collections:
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
            return Answer(encode({"deleted": await self._write(request, work)}))
        except writing.Rejected as rejected:
            raise self._refusal(rejected, collection_id) from None

    async def get(self, request: Request) -> Answer:
        wanted = decode_get(request.body)
        collection_id = _collection_id(request)

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

        return Answer(await self._of_collection(request, collection_id, read))

    async def query(self, request: Request) -> Answer:
        wanted = decode_query(request.body)
        collection_id = _collection_id(request)
        rows = wanted.rows
        if rows is None:
            raise Undecodable  # nothing here makes vectors from texts

        async def read(connection: Connection, collection: Collection) -> bytes:
            _check_queries(rows, collection.dimension)
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

        return Answer(await self._of_collection(request, collection_id, read, settled=True))

    async def count(self, request: Request) -> Answer:
        check_read_level(request.query)
        collection_id = _collection_id(request)

        async def read(connection: Connection, _: Collection) -> int:
            return await records.count_records(connection, collection_id)

        return Answer(encode(await self._of_collection(request, collection_id, read)))

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
            refusal = await asyncio.to_thread(self.judge.filter, where, where_document)
            if refusal is not None:
                raise refusal
        if found is None:
            raise Refusal(501, "ChromaError", f"This filter is not supported. {_NOT_HERE}")
        return found

    # ------------------------------------------------------------------------------- catalogue

    async def create_collection(self, request: Request) -> Answer:
        wanted = decode_new_collection(request.body)
        look = await asyncio.to_thread(
            self.judge.create, wanted.name, wanted.metadata, wanted.configuration, wanted.schema
        )
        tenant, database = _home(request)
        found = await self._write(
            request,
            lambda connection: catalogue.create_collection(
                connection, tenant, database, wanted.name, look, get_or_create=wanted.get_or_create
            ),
        )
        return Answer(encode(found.rendered()))

    async def list_collections(self, request: Request) -> Answer:
        page = decode_page(request.query)
        home = _home(request)
        found = await self._read(
            request, lambda connection: catalogue.list_collections(connection, *home, page.limit, page.offset)
        )
        return Answer(encode([one.rendered() for one in found]))

    async def count_collections(self, request: Request) -> Answer:
        home = _home(request)
        count = await self._read(request, lambda connection: catalogue.count_collections(connection, *home))
        return Answer(encode(count))

    async def get_collection(self, request: Request) -> Answer:
        """By name, though the route calls it `collection_id`."""
        home, name = _home(request), request.parameters["collection_id"]
        found = await self._read(request, lambda connection: catalogue.find_by_name(connection, *home, name))
        if found is None:
            raise Refusal(404, "NotFoundError", f"Collection [{name}] does not exist")
        return Answer(encode(found.rendered()))

    async def get_collection_by_id(self, request: Request) -> Answer:
        home = _home(request)
        collection_id = parse_uuid(request.parameters["collection_id"])
        if collection_id is None:
            raise invalid("Validation error: collection_id: Invalid collection ID format, expected UUID")
        found = await self._read(request, lambda connection: catalogue.find_by_id(connection, collection_id))
        if found is None or (found.tenant, found.database) != home:
            raise Refusal(404, "NotFoundError", f"Collection [{collection_id}] does not exist")
        return Answer(encode(found.rendered()))

    async def update_collection(self, request: Request) -> Answer:
        change = decode_collection_change(request.body)
        collection_id = _collection_id(request)
        current = await self._prepare(
            request, lambda connection: catalogue.find_by_id(connection, collection_id)
        )
        if current is None:
            raise no_collection(collection_id)
        if (change.new_name, change.new_metadata, change.new_configuration) == (None, None, None):
            return Answer(encode({}))
        look = await asyncio.to_thread(
            self.judge.change, current, change.new_name, change.new_metadata, change.new_configuration
        )
        name = change.new_name or current.name
        await self._write(
            request, lambda connection: catalogue.change_collection(connection, current, name, look)
        )
        self._collections.pop(collection_id, None)
        return Answer(encode({}))

    async def delete_collection(self, request: Request) -> Answer:
        home, name = _home(request), request.parameters["collection_id"]
        collection_id = await self._write(
            request, lambda connection: catalogue.delete_collection(connection, *home, name)
        )
        self._collections.pop(collection_id, None)
        return Answer(encode({}))

    async def create_tenant(self, request: Request) -> Answer:
        name = decode_name(request.body)
        refusal = await asyncio.to_thread(self.judge.tenant, name)
        if refusal is not None:
            raise refusal
        await self._write(request, lambda connection: catalogue.create_tenant(connection, name))
        return Answer(encode({}))

    async def get_tenant(self, request: Request) -> Answer:
        name = request.parameters["tenant_name"]
        if not await self._read(request, lambda connection: catalogue.has_tenant(connection, name)):
            raise Refusal(404, "NotFoundError", f"Tenant [{name}] not found")
        return Answer(encode({"name": name, "resource_name": None}))

    async def create_database(self, request: Request) -> Answer:
        name, tenant = decode_name(request.body), request.parameters["tenant"]
        problem = name_problem(name)
        if problem is not None:
            raise invalid(problem)
        await self._write(request, lambda connection: catalogue.create_database(connection, tenant, name))
        return Answer(encode({}))

    async def list_databases(self, request: Request) -> Answer:
        page, tenant = decode_page(request.query), request.parameters["tenant"]
        found = await self._read(
            request, lambda connection: catalogue.list_databases(connection, tenant, page.limit, page.offset)
        )
        return Answer(encode(found))

    async def get_database(self, request: Request) -> Answer:
        tenant, name = _home(request)
        found = await self._read(
            request, lambda connection: catalogue.find_database(connection, tenant, name)
        )
        if found is None:
            raise Refusal(404, "NotFoundError", f"Database [{name}] not found. Are you sure it exists?")
        return Answer(encode(found))

    async def delete_database(self, request: Request) -> Answer:
        tenant, name = request.parameters["tenant"], request.parameters["database"]
        await self._write(request, lambda connection: catalogue.delete_database(connection, tenant, name))
        self._collections.clear()
        return Answer(encode({}))

    # ---------------------------------------------------------------------------- about itself

    async def heartbeat(self, request: Request) -> Answer:
        del request
        return Answer(encode({"nanosecond heartbeat": time.time_ns()}))

    async def healthcheck(self, request: Request) -> Answer:
        del request
        return Answer(encode({"is_executor_ready": True, "is_log_client_ready": True}))

    async def version(self, request: Request) -> Answer:
        del request
        return Answer(encode(VERSION))

    async def pre_flight_checks(self, request: Request) -> Answer:
        del request
        return Answer(encode({"max_batch_size": MAX_BATCH_SIZE, "supports_base64_encoding": True}))

    async def identity(self, request: Request) -> Answer:
        del request
        return Answer(encode(_IDENTITY))

    async def missing(self, request: Request) -> Answer:
        del request
        raise Refusal(501, "ChromaError", _NOT_HERE)


def _home(request: Request) -> tuple[str, str]:
    check_database_name(request.parameters["database"])
    return request.parameters["tenant"], request.parameters["database"]


def _collection_id(request: Request) -> str:
    check_database_name(request.parameters["database"])
    return parse_collection_id(request.parameters["collection_id"])


def _check_form(given: RecordsBody, dimension: int | None) -> None:
    """What Chroma refuses once it has found the collection, in its order."""
    if given.problem == ASK:
        raise Undecodable
    if isinstance(given.problem, Refusal):
        raise given.problem
    vectors = given.vectors
    if vectors is not None and vectors.ragged:
        raise invalid("Inconsistent dimensions in provided embeddings")
    if given.uneven:
        _check_dimension(dimension, vectors.dimension if vectors is not None else None)
        raise invalid("Inconsistent number of IDs, embeddings, documents, URIs and metadatas")


def _check_dimension(known: int | None, given: int | None) -> None:
    if None not in (known, given) and known != given:
        raise invalid(f"Collection expecting embedding with dimension of {known}, got {given}")


def _check_queries(rows: Sequence[NDArray[np.float32]], dimension: int | None) -> None:
    if len({row.shape[0] for row in rows}) > 1:
        raise invalid("Inconsistent dimensions in provided embeddings")
    for row in rows:
        _check_dimension(dimension, row.shape[0])
        if not np.isfinite(row).all():
            raise invalid("Postgres does not compare vectors with NaN or infinity in them.")


def _check_records(given: RecordsBody) -> None:
    if "" in given.ids:
        raise invalid("Empty ID, ID must have at least one character")
    metadatas: Sequence[Any] = given.metadatas or ()
    for metadata in metadatas:
        for key, value in (metadata or {}).items():
            if isinstance(value, dict):
                message = f"Unimplemented: Sparse vector is not supported for local chroma: {key}"
                raise Refusal(501, "ChromaError", message)
