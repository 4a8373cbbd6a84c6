"""Routes of records: add, upsert, update, delete, get, query, count, and what a local Chroma lacks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from cluster.api.bounds import check_results, may_find_too_many
from cluster.api.catalog_routes import check_single_region
from cluster.api.decode import (
    check_read_level,
    decode_attach,
    decode_delete,
    decode_detach,
    decode_get,
    decode_query,
    decode_records,
)
from cluster.api.encode import encode_neighbours, encode_records
from cluster.api.fields import ASK, Undecodable
from cluster.api.names import (
    check_database_name,
    invalid,
    leave_to_the_log,
    no_collection,
    parse_collection_id,
    parse_uuid,
)
from cluster.api.wording import ask_with_collection, refuse
from cluster.chroma import interface as chroma
from cluster.errors import Refusal
from cluster.reads import Level
from cluster.state.catalog import check_dimension
from cluster.state.commands import DeleteRecords, WriteRecords

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web
    from numpy.typing import NDArray

    from cluster.api.bodies import DeleteBody, QueryBody, RecordsBody
    from cluster.api.exchange import Exchange
    from cluster.state.commands import WriteKind

T = TypeVar("T")

_NO_SEARCH = "Error executing plan: Not implemented: Search operation is not implemented for local executor"
_NO_ATTACH = (
    "Tonic error: code: 'Operation is not implemented or not supported', message: \" Attached Function "
    'operations not yet implemented in SqliteSysDb"'
)
_NO_DETACH = (
    "Tonic error: code: 'Operation is not implemented or not supported', message: \"Not implemented\""
)

# ------------------------------------------------------------------------------------- writes


async def add(exchange: Exchange) -> web.StreamResponse:
    return await _write("add", exchange)


async def upsert(exchange: Exchange) -> web.StreamResponse:
    return await _write("upsert", exchange)


async def update(exchange: Exchange) -> web.StreamResponse:
    return await _write("update", exchange)


async def _write(kind: WriteKind, exchange: Exchange) -> web.StreamResponse:
    records = await exchange.work(decode_records, kind, exchange.request.body)
    collection_id = _checked_id(exchange)
    if records.problem is not None or records.uneven or (records.vectors and records.vectors.ragged):
        return await _refuse_records(exchange, collection_id, records)
    vectors = records.vectors
    rows = vectors.rows if vectors is not None else None
    dimension = vectors.dimension if vectors is not None else None
    model: str | None = None
    if records.text_only and await _embeds(exchange, collection_id, records):
        rows, dimension, model = await _embed_documents(exchange, collection_id, records)
    return await exchange.outcome(
        WriteRecords(
            kind,
            collection_id,
            records.ids,
            dimension,
            rows,
            records.metadatas,
            records.documents,
            records.uris,
            model,
        )
    )


async def _embeds(exchange: Exchange, collection_id: str, records: RecordsBody) -> bool:
    """Whether documents without vectors get vectors here.

    An update of documents alone is one that Chroma knows: it leaves the vectors. Only where this
    cluster made the vectors from the documents does it make them anew.
    """
    if records.kind != "update":
        return True
    try:
        return (await exchange.find(collection_id)).model is not None
    except Refusal as refusal:
        leave_to_the_log(refusal)
        return False


async def _embed_documents(
    exchange: Exchange, collection_id: str, records: RecordsBody
) -> tuple[tuple[bytes | None, ...] | None, int | None, str | None]:
    documents = records.documents or ()
    texts = [document for document in documents if document is not None]
    if not texts:
        return None, None, None
    try:
        made, model, dimension = await exchange.service.embed(collection_id, texts)
    except Refusal as refusal:
        leave_to_the_log(refusal)
        return None, None, None
    vectors = iter(made)
    return tuple(None if one is None else next(vectors) for one in documents), dimension, model


async def _refuse_records(exchange: Exchange, collection_id: str, records: RecordsBody) -> web.StreamResponse:
    """Refuse what Chroma refuses once it has found the collection, in its order."""
    collection = await exchange.find(collection_id)
    if records.problem == ASK:
        return await refuse(exchange)
    if isinstance(records.problem, Refusal):
        raise records.problem
    if records.vectors is not None:
        if records.vectors.ragged:
            raise invalid("Inconsistent dimensions in provided embeddings")
        check_dimension(collection, records.vectors.dimension)
    raise invalid("Inconsistent number of IDs, embeddings, documents, URIs and metadatas")


async def delete(exchange: Exchange) -> web.StreamResponse:
    wanted = await exchange.work(decode_delete, exchange.request.body)
    collection_id = _checked_id(exchange)
    filtered = wanted.where is not None or wanted.where_document is not None
    problem: Refusal | None = None
    if filtered:
        judge = exchange.service.scratch.judge_where
        problem = await asyncio.to_thread(judge, wanted.where, wanted.where_document)
    elif wanted.ids is not None and not wanted.ids:
        problem = invalid("Validation error: ids, where: Either ids or where must be specified")
    elif wanted.limit is not None:
        problem = invalid(
            "Validation error: limit, where: limit can only be specified when a where clause is provided"
        )
    if problem is not None:
        await exchange.find(collection_id)
        raise problem
    if filtered:
        await _try_filter(exchange, collection_id, wanted)
    return await exchange.outcome(
        DeleteRecords(collection_id, wanted.ids, wanted.where, wanted.where_document, wanted.limit)
    )


async def _try_filter(exchange: Exchange, collection_id: str, wanted: DeleteBody) -> None:
    """Read with the filter before it enters the log: one that fails here would fail every node."""

    def read(engine: chroma.Engine) -> None:
        engine.get(
            collection_id, chroma.Get(wanted.ids, wanted.where, wanted.where_document, limit=1, include=())
        )

    try:
        await exchange.service.read(Level.LINEARIZABLE, None, None, collection_id, read)
    except Refusal as refusal:
        leave_to_the_log(refusal)


# -------------------------------------------------------------------------------------- reads


async def get(exchange: Exchange) -> web.StreamResponse:
    wanted = await exchange.work(decode_get, exchange.request.body)
    collection_id = _checked_id(exchange)

    def read(engine: chroma.Engine) -> bytes:
        asked = chroma.Get(
            wanted.ids, wanted.where, wanted.where_document, wanted.limit, wanted.offset, wanted.include
        )
        return encode_records(engine.get(collection_id, asked), wanted.include)

    return exchange.raw(await _read(exchange, collection_id, read))


async def query(exchange: Exchange) -> web.StreamResponse:
    wanted = await exchange.work(decode_query, exchange.request.body)
    collection_id = _checked_id(exchange)
    rows = wanted.rows
    if rows is None:
        rows = await _embed_texts(exchange, collection_id, wanted)
    vectors = _matrix(rows)

    def read(engine: chroma.Engine) -> bytes:
        if may_find_too_many(len(rows), wanted.n_results):
            check_results(len(rows), wanted.n_results, engine.count(collection_id))
        asked = chroma.Query(
            vectors, wanted.n_results, wanted.ids, wanted.where, wanted.where_document, wanted.include
        )
        return encode_neighbours(engine.query(collection_id, asked), wanted.include)

    return exchange.raw(await _read(exchange, collection_id, read))


async def _embed_texts(
    exchange: Exchange, collection_id: str, wanted: QueryBody
) -> list[NDArray[np.float32]]:
    texts = wanted.texts or []
    if not texts:
        return []
    made, _, _ = await exchange.service.embed(collection_id, texts, query=True)
    return [np.frombuffer(vector, dtype="<f4") for vector in made]


def _matrix(rows: list[NDArray[np.float32]]) -> Any:
    """One array where the rows are of one length; the engine refuses the others in Chroma's words."""
    if rows and len({row.shape[0] for row in rows}) == 1:
        return np.stack(rows)
    return rows


async def count(exchange: Exchange) -> web.StreamResponse:
    check_read_level(exchange.request.query)
    collection_id = _checked_id(exchange)
    return exchange.json(await _read(exchange, collection_id, lambda engine: engine.count(collection_id)))


async def _read(exchange: Exchange, collection_id: str, fn: Callable[[chroma.Engine], T]) -> T:
    try:
        return await exchange.read(collection_id, fn)
    except Refusal as refusal:
        if refusal.status == 404:
            # Over HTTP, Chroma looks for the collection before all else and says so plainly.
            missing = no_collection(collection_id)
            missing.log_index = refusal.log_index
            raise missing from None
        raise


# ------------------------------------------------------------------- what a local Chroma lacks


async def search(exchange: Exchange) -> web.StreamResponse:
    """Chroma reads and judges the body, then says that it cannot search: so does the oracle."""
    answer = await ask_with_collection(exchange)
    if answer is not None and answer.status in (413, 415, 422):
        return exchange.passed_on(answer)
    if answer is not None and b"Failed to parse the request body" in answer.body:
        return exchange.passed_on(answer)
    collection_id = _checked_id(exchange)
    await exchange.find(collection_id)
    if answer is not None and answer.is_refusal:
        return exchange.passed_on(answer)
    raise Refusal(501, "ChromaError", _NO_SEARCH)


async def attach_function(exchange: Exchange) -> web.StreamResponse:
    decode_attach(exchange.request.body)
    _check_function(exchange)
    raise Refusal(501, "ChromaError", _NO_ATTACH)


async def get_function(exchange: Exchange) -> web.StreamResponse:
    _check_function(exchange)
    raise Refusal(404, "NotFoundError", "Attached function not found")


async def detach_function(exchange: Exchange) -> web.StreamResponse:
    decode_detach(exchange.request.body)
    _check_function(exchange)
    raise Refusal(501, "ChromaError", _NO_DETACH)


def _check_function(exchange: Exchange) -> None:
    check_database_name(exchange.request.parameters["database"])
    check_single_region(exchange, "attached functions")
    if parse_uuid(exchange.request.parameters["collection_id"]) is None:
        raise Undecodable


def _checked_id(exchange: Exchange) -> str:
    check_database_name(exchange.request.parameters["database"])
    return parse_collection_id(exchange.request.parameters["collection_id"])
