"""Request bodies held against the limits, once they are read; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from cluster.api import limits
from cluster.api.filters import check_filters

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cluster.api.bodies import (
        CollectionChange,
        DeleteBody,
        GetBody,
        NewCollection,
        QueryBody,
        RecordsBody,
    )
    from cluster.state.commands import Metadata


def check_records(records: RecordsBody) -> None:
    """Raises:
    Refusal: 400, one of them, or all together, are too much.
    """
    limits.RECORDS.check(len(records.ids))
    _check_ids(records.ids)
    if records.vectors is not None:
        check_dimension(records.vectors.dimension)
    for column in (records.documents, records.uris):
        for at, text in enumerate(column or ()):
            if text is not None:
                limits.check_text(limits.TEXT_BYTES, text, f"record {at}")
    total = 0
    for at, metadata in enumerate(records.metadatas or ()):
        if metadata:
            texts = (_given(records.documents, at), _given(records.uris, at))
            total += _check_metadata(metadata, texts, at)
    limits.METADATA_VALUES.check(total)


def check_dimension(dimension: int | None) -> None:
    """Raises:
    Refusal: 400, too many; None stands for vectors of which Chroma refuses some by itself.
    """
    if dimension is not None:
        limits.DIMENSION.check(dimension)


def _check_metadata(metadata: Metadata, texts: tuple[bool, bool], at: int) -> int:
    """How many values a record's metadata have."""
    place = f"record {at}"
    limits.RECORD_KEYS.check(len(metadata) + sum(texts), place)
    items = 0
    for key, value in metadata.items():
        limits.check_text(limits.KEY_BYTES, key, place)
        if isinstance(value, str):
            limits.check_text(limits.TEXT_BYTES, value, place)
        elif isinstance(value, list):
            items += len(value)  # pyright: ignore[reportUnknownArgumentType]
            _check_items(value, place)  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(value, dict):
            items += _sparse_items(value)  # pyright: ignore[reportUnknownArgumentType]
    limits.LIST_ITEMS.check(items, place)
    return len(metadata) + items


def _check_items(items: list[Any], place: str) -> None:
    for item in items:
        if isinstance(item, str):
            limits.check_text(limits.TEXT_BYTES, item, place)


def _sparse_items(value: dict[str, Any]) -> int:
    columns = [cast("list[Any]", found) for found in value.values() if isinstance(found, list)]
    return max(map(len, columns), default=0)


def _given(column: Sequence[Any] | None, at: int) -> bool:
    return column is not None and at < len(column) and column[at] is not None


def _check_ids(ids: Iterable[str]) -> None:
    for one in ids:
        limits.check_text(limits.ID_BYTES, one)


def check_get(wanted: GetBody, where: Any, where_document: Any) -> None:
    """Raises:
    Refusal: 400, its ids or filters (`where`, `where_document` as read from JSON) are too much.
    """
    _check_read_ids(wanted.ids)
    check_filters(where, where_document, (wanted.where, wanted.where_document))


def check_query(wanted: QueryBody, where: Any, where_document: Any) -> None:
    """Raises:
    Refusal: 400, its ids, vectors, texts or filters are too much.
    """
    _check_read_ids(wanted.ids)
    rows = wanted.rows or ()
    limits.QUERY_VECTORS.check(max(len(rows), len(wanted.texts or ())))
    for text in wanted.texts or ():
        limits.check_text(limits.TEXT_BYTES, text)
    check_filters(where, where_document, (wanted.where, wanted.where_document))


def may_find_too_many(vectors: int, n_results: int) -> bool:
    """Whether it depends on the number of records if a query has too many results."""
    return vectors * n_results > limits.QUERY_RESULTS.most


def check_results(vectors: int, n_results: int, records: int) -> None:
    """Raises:
    Refusal: 400, a query of so many vectors in so many records has too many results.
    """
    limits.QUERY_RESULTS.check(vectors * min(n_results, records))


def check_delete(wanted: DeleteBody, where: Any, where_document: Any) -> None:
    """Raises:
    Refusal: 400, its ids or filters are too much.
    """
    limits.DELETE_IDS.check(len(wanted.ids or ()))
    _check_ids(wanted.ids or ())
    check_filters(where, where_document, (wanted.where, wanted.where_document))


def _check_read_ids(ids: Sequence[str] | None) -> None:
    limits.READ_IDS.check(len(ids or ()))
    _check_ids(ids or ())


def check_new_collection(wanted: NewCollection, schema: Any) -> None:
    """Raises:
    Refusal: 400, its definition (`schema` as read from JSON) is too large.
    """
    _check_definition(wanted.metadata, (wanted.configuration, wanted.schema))
    keys = schema.get("keys") if isinstance(schema, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if isinstance(keys, dict):
        limits.SCHEMA_KEYS.check(len(keys))  # pyright: ignore[reportUnknownArgumentType]


def check_collection_change(change: CollectionChange) -> None:
    """Raises:
    Refusal: 400, the new definition is too large.
    """
    _check_definition(change.new_metadata, (change.new_configuration,))


def _check_definition(metadata: Metadata | None, texts: Iterable[str | None]) -> None:
    given = metadata or {}
    limits.COLLECTION_KEYS.check(len(given))
    for key in given:
        limits.check_text(limits.KEY_BYTES, key)
    size = sum(len(text.encode()) for pair in given.items() for text in pair if isinstance(text, str))
    limits.DEFINITION_BYTES.check(size, "metadata")
    for text in texts:
        if text is not None:
            limits.check_text(limits.DEFINITION_BYTES, text)
