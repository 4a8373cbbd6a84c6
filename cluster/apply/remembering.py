"""Reads what a write of several engine calls is about to change, so that it can be undone."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from cluster.chroma.interface import Get
from cluster.errors import ClusterError, EngineDied, EngineUnavailable, Fault, Unavailable
from cluster.state.commands import WriteRecords
from cluster.state.undo import MAX_BYTES, Before

if TYPE_CHECKING:
    from cluster.chroma.interface import Engine, Records
    from cluster.state.work import Remember

#: Ids in one read; fewer where the whole records are read, which may be large.
_IDS: Final = 1000
_WHOLE: Final = 100

#: Id, vector, metadata, document and uri of a record.
_Row: TypeAlias = tuple[str, bytes | None, dict[str, Any] | None, str | None, str | None]


def remember(engine: Engine, work: Remember, max_bytes: int = MAX_BYTES) -> Before:
    """What is there of the records that `work` writes.

    Raises:
        EngineDied: Chroma's process died over it.
        EngineUnavailable: it is being started again; ask later.
        Fault: Chroma failed. Nothing that it says here is an outcome, for another node's may read it well.
    """
    try:
        return _remember(engine, work.command, max_bytes)
    except (EngineDied, EngineUnavailable, Fault):
        raise
    except Unavailable as error:
        raise EngineUnavailable(error.message) from None
    except ClusterError as error:
        raise Fault(f"Chroma cannot read what a write would change: {error.message}") from None


def _remember(engine: Engine, command: WriteRecords, max_bytes: int) -> Before:
    wanted = tuple(dict.fromkeys(command.ids))
    if command.kind == "add":
        known: list[str] = []
        for at in range(0, len(wanted), _IDS):
            known += engine.get(command.collection_id, Get(ids=wanted[at : at + _IDS], include=())).ids
        return Before(tuple(known))
    include = ("embeddings", "documents", "metadatas", "uris")
    found: list[_Row] = []
    size = 0
    for at in range(0, len(wanted), _WHOLE):
        records = engine.get(command.collection_id, Get(ids=wanted[at : at + _WHOLE], include=include))
        rows = _rows(records)
        size += sum(_size(row) for row in rows)
        if size > max_bytes:
            return Before((), is_whole=False)
        found += rows
    # Chroma answers in an order of its own, which other nodes need not share.
    order = {record_id: at for at, record_id in enumerate(wanted)}
    found.sort(key=lambda row: order[row[0]])
    if not found:
        return Before(())
    ids, embeddings, metadatas, documents, uris = zip(*found, strict=True)
    dimension = next((len(vector) // 4 for vector in embeddings if vector is not None), None)
    records_then = WriteRecords(
        "add", command.collection_id, ids, dimension, embeddings, metadatas, documents, uris
    )
    return Before(ids, records_then)


def _rows(found: Records) -> list[_Row]:
    def column(values: list[Any] | None) -> list[Any]:
        return [None] * len(found.ids) if values is None else values

    vectors = [
        None if vector is None else struct.pack(f"<{len(vector)}f", *vector)
        for vector in column(found.embeddings)
    ]
    metadatas = [dict(metadata) if metadata else None for metadata in column(found.metadatas)]
    return list(zip(found.ids, vectors, metadatas, column(found.documents), column(found.uris), strict=True))


def _size(row: _Row) -> int:
    record_id, vector, metadata, document, uri = row
    values = sum(len(key) + _length(value) for key, value in (metadata or {}).items())
    return len(record_id) + len(vector or b"") + values + len(document or "") + len(uri or "")


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    return sum(map(_length, cast("list[Any]", value))) if isinstance(value, list) else 8
