"""Records of one collection in SQL: one table a collection, all records of a request in one transaction.

`seq` is the order of insertion, in which Chroma lists records. `metadata` may hold nulls that an upsert
brought for keys to be removed; they are left out in reading.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import orjson

from cluster.chroma.interface import Neighbours, Records
from evaluation.systems.postgres.values import check_text, metadata_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg
    import numpy as np
    from numpy.typing import NDArray

    from cluster.state.commands import WriteRecords
    from evaluation.systems.postgres.connection import Connection
    from evaluation.systems.postgres.filters import Parameters

#: pgvector's index stops here.
MAX_INDEXED_DIMENSION: Final = 2000
#: Chroma's name of a distance -> pgvector's operator class, its operator, and Chroma's distance from it.
SPACES: Final = {
    "l2": ("vector_l2_ops", "<->", "vector_l2_squared_distance(embedding, $1)"),
    "cosine": ("vector_cosine_ops", "<=>", "embedding <=> $1"),
    "ip": ("vector_ip_ops", "<#>", "1 + (embedding <#> $1)"),
}
#: Chroma shows no metadata as null, but as an empty object where there is a URI.
_METADATA: Final = (
    "CASE WHEN uri IS NULL THEN NULLIF(jsonb_strip_nulls(metadata), '{}') "
    "ELSE COALESCE(jsonb_strip_nulls(metadata), '{}') END::text AS metadata"
)
_GIVEN: Final = (
    "unnest($1::text[], $2::text[], $3::text[], $4::jsonb[], $5::vector[]) "
    "WITH ORDINALITY AS u(id, document, uri, metadata, embedding, place)"
)
_MERGED: Final = (
    "NULLIF(jsonb_strip_nulls("
    "COALESCE(t.metadata, jsonb_build_object()) || COALESCE(new.metadata, jsonb_build_object())), "
    "jsonb_build_object())"
)


def table(collection_id: str) -> str:
    return f"c_{collection_id.replace('-', '')}"


def create_table(collection_id: str) -> str:
    name = table(collection_id)
    return (
        f"CREATE TABLE {name} (seq bigint GENERATED ALWAYS AS IDENTITY, id text PRIMARY KEY, document text, "
        f"uri text, metadata jsonb, embedding vector); "
        f"CREATE INDEX ON {name} (seq); CREATE INDEX ON {name} USING gin (metadata jsonb_path_ops)"
    )


def fix_dimension(collection_id: str, dimension: int, space: str) -> str:
    """Give the empty table's vectors their dimension, and an index."""
    name = table(collection_id)
    change = f"ALTER TABLE {name} ALTER COLUMN embedding TYPE vector({dimension})"
    if dimension > MAX_INDEXED_DIMENSION:
        return change
    operators = SPACES[space][0]
    return (
        f"{change}; CREATE INDEX ON {name} USING hnsw (embedding {operators}) "
        "WITH (m = 16, ef_construction = 100)"
    )


async def write_records(connection: Connection, command: WriteRecords) -> None:
    """Add, upsert or update. An id that is given twice is written twice, in order.

    Raises:
        Unstorable: a text in it cannot be stored; nothing was sent.
    """
    statement = _STATEMENTS[command.kind].replace("{table}", table(command.collection_id))
    parts = [_columns(command, places) for places in _rounds(command)]
    if len(parts) == 1:
        await connection.execute(statement, *parts[0])
        return
    async with connection.transaction():
        for part in parts:
            await connection.execute(statement, *part)


_INSERT: Final = (
    "INSERT INTO {table} AS t (id, document, uri, metadata, embedding) "
    f"SELECT id, document, uri, metadata, embedding FROM {_GIVEN} ORDER BY place "
)
_STATEMENTS: Final = {
    "add": f"{_INSERT}ON CONFLICT (id) DO NOTHING",
    "upsert": (
        f"{_INSERT}ON CONFLICT (id) DO UPDATE SET embedding = EXCLUDED.embedding, "
        "document = COALESCE(EXCLUDED.document, t.document), uri = COALESCE(EXCLUDED.uri, t.uri), "
        f"metadata = {_MERGED.replace('new.', 'EXCLUDED.')}"
    ),
    "update": (
        "UPDATE {table} AS t SET embedding = COALESCE(u.embedding, t.embedding), "
        "document = COALESCE(u.document, t.document), uri = COALESCE(u.uri, t.uri), "
        f"metadata = {_MERGED.replace('new.', 'u.')} FROM {_GIVEN} WHERE t.id = u.id"
    ),
}


def _rounds(command: WriteRecords) -> list[list[int]]:
    """Positions of the records, such that no round has an id twice."""
    if command.kind == "add" or len(set(command.ids)) == len(command.ids):
        return [list(range(len(command.ids)))]
    seen: dict[str, int] = {}
    rounds: list[list[int]] = []
    for place, record_id in enumerate(command.ids):
        at = seen.get(record_id, 0)
        seen[record_id] = at + 1
        if at == len(rounds):
            rounds.append([])
        rounds[at].append(place)
    return rounds


def _columns(command: WriteRecords, places: list[int]) -> list[Any]:
    def column(values: Sequence[Any] | None) -> list[Any]:
        return [None if values is None else values[place] for place in places]

    ids, documents, uris = column(command.ids), column(command.documents), column(command.uris)
    check_text(*ids, *documents, *uris)
    metadatas = [metadata_text(one) for one in column(command.metadatas)]
    return [ids, documents, uris, metadatas, column(command.embeddings)]


async def delete_ids(connection: Connection, collection_id: str, ids: Sequence[str]) -> None:
    await connection.execute(f"DELETE FROM {table(collection_id)} WHERE id = ANY($1::text[])", list(ids))


async def delete_found(
    connection: Connection, collection_id: str, where: str, parameters: Parameters, limit: int | None
) -> int:
    """How many were deleted; `limit` keeps to the first ones."""
    name = table(collection_id)
    if limit is not None:
        where = f"seq IN (SELECT seq FROM {name} WHERE {where} ORDER BY seq LIMIT {limit})"
    return await connection.execute(f"DELETE FROM {name} WHERE {where}", *parameters.values)


async def get_records(
    connection: Connection,
    collection_id: str,
    *,
    where: str,
    parameters: Parameters,
    limit: int | None,
    offset: int,
    include: Sequence[str],
) -> Records:
    shown = ", ".join(["id", *_shown(include)])
    cut = ("" if limit is None else f" LIMIT {limit}") + (f" OFFSET {offset}" if offset else "")
    rows = await connection.fetch(
        f"SELECT {shown} FROM {table(collection_id)} WHERE {where} ORDER BY seq{cut}", *parameters.values
    )
    return Records(
        [row["id"] for row in rows],
        _column(rows, "embedding", "embeddings" in include),
        _column(rows, "document", "documents" in include),
        _column(rows, "uri", "uris" in include),
        _metadatas(rows) if "metadatas" in include else None,
    )


async def find_neighbours(
    connection: Connection,
    collection_id: str,
    rows: Sequence[NDArray[np.float32]],
    *,
    space: str,
    n_results: int,
    where: str,
    parameters: Parameters,
    include: Sequence[str],
) -> Neighbours:
    """`$1` is left to the vector in the positions of `parameters`."""
    _, operator, distance = SPACES[space]
    shown = ", ".join(["id", *_shown(include), f"{distance} AS distance"])
    statement = (
        f"SELECT {shown} FROM {table(collection_id)} WHERE {where} "
        f"ORDER BY embedding {operator} $1::vector LIMIT {n_results}"
    )
    found: list[Sequence[asyncpg.Record]] = []
    for row in rows:
        given = [row.astype("<f4").tobytes(), *parameters.values[1:]]
        found.append(await connection.fetch(statement, *given))

    def columns(name: str, wanted: str) -> Any:
        return [_column(one, name, True) for one in found] if wanted in include else None

    return Neighbours(
        [[row["id"] for row in one] for one in found],
        columns("embedding", "embeddings"),
        columns("document", "documents"),
        columns("uri", "uris"),
        [_metadatas(one) for one in found] if "metadatas" in include else None,
        columns("distance", "distances"),
    )


def nothing_near(each: list[list[Any]], include: Sequence[str]) -> Neighbours:
    """The answer of a collection that never had a record: an empty list for each vector."""
    names = ("embeddings", "documents", "uris", "metadatas", "distances")
    return Neighbours(each, *(each if name in include else None for name in names))


async def count_records(connection: Connection, collection_id: str) -> int:
    return int(await connection.value(f"SELECT count(*) FROM {table(collection_id)}"))


def with_ids(where: str, parameters: Parameters, ids: Sequence[str] | None) -> str:
    """The condition, restricted to these ids if any are given."""
    if ids is None:
        return where
    return f"id = ANY({parameters.add(list(ids))}::text[]) AND {where}"


def _shown(include: Sequence[str]) -> list[str]:
    columns = {"embeddings": "embedding", "documents": "document", "uris": "uri", "metadatas": _METADATA}
    return [column for name, column in columns.items() if name in include]


def _column(rows: Sequence[asyncpg.Record], name: str, wanted: bool) -> Any:
    return [row[name] for row in rows] if wanted else None


def _metadatas(rows: Sequence[asyncpg.Record]) -> list[dict[str, Any] | None]:
    """Passed on as the text that they are: the JSON of the answer."""
    texts = (row["metadata"] for row in rows)
    return [None if text is None else cast("Any", orjson.Fragment(text.encode())) for text in texts]
