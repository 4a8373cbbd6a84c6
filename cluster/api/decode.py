"""Request bodies to plain values, as strictly as Chroma's own server; pure.

Three ways out. A body that is read becomes a value. One that this module does not read raises
`Undecodable`: a real Chroma (the oracle) then says in its own words what is wrong with it. What
Chroma refuses only after it has found the collection is kept in the value (`problem`), because an
unknown collection is answered first.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from cluster.api import bounds, limits
from cluster.api.bodies import (
    CollectionChange,
    DeleteBody,
    GetBody,
    NewCollection,
    Page,
    QueryBody,
    RecordsBody,
)
from cluster.api.fields import (
    ASK,
    MAX_U32,
    Undecodable,
    optional,
    read_bool,
    read_document,
    read_filter,
    read_object,
    read_optional_strings,
    read_string,
    read_strings,
    read_u32,
)
from cluster.api.metadata import collection_metadata, harmful, read_metadatas
from cluster.api.names import invalid
from cluster.api.vectors import DecodedVectors, read_query_rows, read_vectors

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from cluster.errors import Refusal
    from cluster.state.commands import WriteKind

_INCLUDES: Final = frozenset({"distances", "documents", "embeddings", "metadatas", "uris"})
_GET_INCLUDE: Final = ("documents", "metadatas")
_QUERY_INCLUDE: Final = ("documents", "metadatas", "distances")
_UNSIGNED: Final = re.compile(r"\+?[0-9]+")
_U32_DIGITS: Final = 10
_READ_LEVELS: Final = frozenset({"index_and_wal", "index_only", "index_and_bounded_wal"})


# ------------------------------------------------------------------------------------- bodies


def decode_records(kind: WriteKind, body: bytes) -> RecordsBody:
    """The body of add, upsert or update."""
    found = read_object(body, ("ids", "embeddings", "metadatas", "documents", "uris"))
    ids = _id_tuple(found.get("ids"))
    documents = optional(found.get("documents"), read_optional_strings)
    uris = optional(found.get("uris"), read_optional_strings)
    problem: Refusal | str | None = None
    raw = found.get("embeddings")
    vectors: DecodedVectors | None = None
    text_only = False
    if raw is not None:
        vectors, problem = read_vectors(raw, nullable=kind == "update")
    elif kind != "update":
        # Chroma has no such request; here the leader embeds the documents.
        if not documents or None in documents:
            raise Undecodable
        text_only = True
    elif documents is not None and "embeddings" not in found:
        text_only = True
    metadatas, bad_metadata = read_metadatas(found.get("metadatas"), nullable=kind != "add")
    if problem != ASK and bad_metadata is not None:
        problem = _validation([*_validation_lines(problem), f"metadatas: {bad_metadata}"])
    elif problem is not None and problem != ASK:
        problem = _as_refusal(problem)
    if problem is None:
        problem = harmful(metadatas, documents)
    given: tuple[Sequence[Any] | None, ...] = (
        vectors.rows if vectors is not None else None,
        metadatas,
        documents,
        uris,
    )
    uneven = any(values is not None and len(values) != len(ids) for values in given)
    records = RecordsBody(kind, ids, vectors, metadatas, documents, uris, text_only, uneven, problem)
    bounds.check_records(records)
    return records


def decode_get(body: bytes) -> GetBody:
    found = read_object(body, ("ids", "where", "where_document", "limit", "offset", "include"))
    wanted = GetBody(
        optional(found.get("ids"), read_strings),
        read_filter(found.get("where")),
        read_filter(found.get("where_document")),
        optional(found.get("limit"), read_u32),
        optional(found.get("offset"), read_u32) or 0,
        _include(found, _GET_INCLUDE),
    )
    bounds.check_get(wanted, found.get("where"), found.get("where_document"))
    return wanted


def decode_query(body: bytes) -> QueryBody:
    known = ("ids", "where", "where_document", "query_embeddings", "query_texts", "n_results", "include")
    found = read_object(body, known)
    raw = found.get("query_embeddings")
    rows: list[NDArray[np.float32]] | None = None
    texts: list[str] | None = None
    if raw is not None:
        rows = read_query_rows(raw)
    elif "query_texts" in found:
        texts = read_strings(found["query_texts"])
    else:
        raise Undecodable
    n_results = optional(found.get("n_results"), read_u32)
    wanted = QueryBody(
        rows,
        texts,
        10 if n_results is None else n_results,
        optional(found.get("ids"), read_strings),
        read_filter(found.get("where")),
        read_filter(found.get("where_document")),
        _include(found, _QUERY_INCLUDE),
    )
    bounds.check_query(wanted, found.get("where"), found.get("where_document"))
    return wanted


def decode_delete(body: bytes) -> DeleteBody:
    found = read_object(body, ("ids", "where", "where_document", "limit"))
    wanted = DeleteBody(
        optional(found.get("ids"), _id_tuple),
        read_filter(found.get("where")),
        read_filter(found.get("where_document")),
        optional(found.get("limit"), read_u32),
    )
    bounds.check_delete(wanted, found.get("where"), found.get("where_document"))
    return wanted


def decode_new_collection(body: bytes) -> NewCollection:
    found = read_object(body, ("name", "metadata", "configuration", "schema", "get_or_create"))
    wanted = NewCollection(
        read_string(found.get("name")),
        optional(found.get("metadata"), collection_metadata(nullable=False)),
        optional(found.get("configuration"), read_document),
        optional(found.get("schema"), read_document),
        read_bool(found.get("get_or_create", False)),
    )
    bounds.check_new_collection(wanted, found.get("schema"))
    return wanted


def decode_collection_change(body: bytes) -> CollectionChange:
    found = read_object(body, ("new_name", "new_metadata", "new_configuration"))
    change = CollectionChange(
        optional(found.get("new_name"), read_string),
        optional(found.get("new_metadata"), collection_metadata(nullable=True)),
        optional(found.get("new_configuration"), read_document),
    )
    bounds.check_collection_change(change)
    return change


def decode_name(body: bytes, field: str = "name", limit: limits.Limit | None = None) -> str:
    """The one string that creating a tenant or database, patching a tenant or forking asks for.

    Raises:
        Refusal: 400, it is longer than `limit` allows.
    """
    name = read_string(read_object(body, (field,)).get(field))
    if limit is not None:
        limits.check_text(limit, name)
    return name


def decode_attach(body: bytes) -> None:
    """Only whether the body is one that Chroma reads: it then has no use for it."""
    found = read_object(body, ("name", "function_id", "output_collection", "params"))
    for field in ("name", "function_id", "output_collection"):
        read_string(found.get(field))


def decode_detach(body: bytes) -> None:
    """As `decode_attach`."""
    read_bool(read_object(body, ("delete_output",)).get("delete_output", False))


# ------------------------------------------------------------------------------ query strings


def decode_page(query: str) -> Page:
    """`limit` and `offset` of a listing."""
    found = _parameters(query, ("limit", "offset"))
    limit = found.get("limit")
    return Page(None if limit is None else _unsigned(limit), _unsigned(found.get("offset", "0")))


def check_read_level(query: str) -> None:
    """A single Chroma reads the same at each of its read levels, so only the name is checked."""
    level = _parameters(query, ("read_level",)).get("read_level", "index_and_wal")
    if level not in _READ_LEVELS:
        raise Undecodable


def _parameters(query: str, known: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key in known:
            if key in found:
                raise Undecodable
            found[key] = value
    return found


def _unsigned(text: str) -> int:
    if not _UNSIGNED.fullmatch(text):
        raise Undecodable
    # Python reads no number of thousands of digits, Rust any number of zeros before one.
    digits = text.removeprefix("+").lstrip("0") or "0"
    if len(digits) > _U32_DIGITS or int(digits) > MAX_U32:
        raise Undecodable
    return int(digits)


# ------------------------------------------------------------------------------------ helpers


def _id_tuple(value: Any) -> tuple[str, ...]:
    return tuple(read_strings(value))


def _include(found: dict[str, Any], default: tuple[str, ...]) -> list[str]:
    if "include" not in found:
        return list(default)
    include = read_strings(found["include"])
    if not _INCLUDES.issuperset(include):
        raise Undecodable
    return include


def _validation_lines(problem: Refusal | str | None) -> list[str]:
    return [problem] if isinstance(problem, str) else []


def _validation(lines: list[str]) -> Refusal:
    return invalid("Validation error: " + "\n".join(lines))


def _as_refusal(problem: Refusal | str) -> Refusal:
    return _validation([problem]) if isinstance(problem, str) else problem
