"""Request bodies to plain values, as strictly as Chroma's own server; pure.

Three ways out. A body that is read becomes a value. One that this module does not read raises
`Undecodable`: a real Chroma (the oracle) then says in its own words what is wrong with it. What
Chroma refuses only after it has found the collection is kept in the value (`problem`), because an
unknown collection is answered first.
"""

from __future__ import annotations

import binascii
import itertools
import json
import math
import re
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import parse_qsl

import numpy as np
import orjson

from cluster.api.names import invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from cluster.commands import Metadata, WriteKind
    from cluster.errors import Refusal

MAX_U32: Final = 2**32 - 1
_MAX_I64: Final = 2**63 - 1
#: Chroma's JSON reader gives up at 128 levels, and a field's value is in one already.
_DEEPEST: Final = 127
_INCLUDES: Final = frozenset({"distances", "documents", "embeddings", "metadatas", "uris"})
_GET_INCLUDE: Final = ("documents", "metadatas")
_QUERY_INCLUDE: Final = ("documents", "metadatas", "distances")
_NUMBERS: Final = frozenset({int, float})
_UNSIGNED: Final = re.compile(r"\+?[0-9]+")
#: Where Chroma keeps the document among the metadata.
_DOCUMENT_KEY: Final = "chroma:document"
_READ_LEVELS: Final = frozenset({"index_and_wal", "index_only", "index_and_bounded_wal"})


class Undecodable(Exception):
    """Not a body that this module reads; Chroma itself will say why."""


#: Stands in `problem` where only Chroma itself can word it.
ASK: Final = "ask"


@dataclass(frozen=True, slots=True)
class Vectors:
    """Decoded embeddings: float32 bytes a record; `dimension` is None if ragged or none is given."""

    rows: tuple[bytes | None, ...]
    dimension: int | None
    ragged: bool = False


@dataclass(frozen=True, slots=True)
class Records:
    """An add, upsert or update. `problem` is Chroma's objection once the collection is known.

    `vectors` is None for an update without embeddings, and where the leader is to embed
    (`text_only`). `uneven`: the lists have different lengths, refused after the dimension.
    """

    kind: WriteKind
    ids: tuple[str, ...]
    vectors: Vectors | None
    metadatas: tuple[Metadata | None, ...] | None
    documents: tuple[str | None, ...] | None
    uris: tuple[str | None, ...] | None
    text_only: bool
    uneven: bool
    problem: Refusal | str | None


@dataclass(frozen=True, slots=True)
class Get:
    ids: list[str] | None
    where: str | None
    where_document: str | None
    limit: int | None
    offset: int
    include: list[str]


@dataclass(frozen=True, slots=True)
class Query:
    """`rows` are the query vectors, or None if `texts` are to be embedded."""

    rows: list[NDArray[np.float32]] | None
    texts: list[str] | None
    n_results: int
    ids: list[str] | None
    where: str | None
    where_document: str | None
    include: list[str]


@dataclass(frozen=True, slots=True)
class Delete:
    ids: tuple[str, ...] | None
    where: str | None
    where_document: str | None
    limit: int | None


@dataclass(frozen=True, slots=True)
class NewCollection:
    """`configuration` and `schema` are JSON texts."""

    name: str
    metadata: Metadata | None
    configuration: str | None
    schema: str | None
    get_or_create: bool


@dataclass(frozen=True, slots=True)
class CollectionChange:
    new_name: str | None
    new_metadata: Metadata | None
    new_configuration: str | None


@dataclass(frozen=True, slots=True)
class Page:
    limit: int | None
    offset: int


# ------------------------------------------------------------------------------------- bodies


def decode_records(kind: WriteKind, body: bytes) -> Records:
    """The body of add, upsert or update."""
    found = _object(body, ("ids", "embeddings", "metadatas", "documents", "uris"))
    ids = _strings(found.get("ids"))
    documents = _optional(found.get("documents"), _maybe_strings)
    uris = _optional(found.get("uris"), _maybe_strings)
    problem: Refusal | str | None = None
    raw = found.get("embeddings")
    vectors: Vectors | None = None
    text_only = False
    if raw is not None:
        vectors, problem = _vectors(raw, nullable=kind == "update")
    elif kind != "update":
        # Chroma has no such request; here the leader embeds the documents.
        if not documents or None in documents:
            raise Undecodable
        text_only = True
    elif documents is not None and "embeddings" not in found:
        text_only = True
    metadatas, bad_metadata = _metadatas(found.get("metadatas"), nullable=kind != "add")
    if problem != ASK and bad_metadata is not None:
        problem = _validation([*_validation_lines(problem), f"metadatas: {bad_metadata}"])
    elif problem is not None and problem != ASK:
        problem = _as_refusal(problem)
    if problem is None:
        problem = _harmful(metadatas, documents)
    given: tuple[Sequence[Any] | None, ...] = (
        vectors.rows if vectors is not None else None,
        metadatas,
        documents,
        uris,
    )
    uneven = any(values is not None and len(values) != len(ids) for values in given)
    return Records(kind, ids, vectors, metadatas, documents, uris, text_only, uneven, problem)


def decode_get(body: bytes) -> Get:
    found = _object(body, ("ids", "where", "where_document", "limit", "offset", "include"))
    return Get(
        _optional(found.get("ids"), _string_list),
        _filter(found.get("where")),
        _filter(found.get("where_document")),
        _optional(found.get("limit"), _u32),
        _optional(found.get("offset"), _u32) or 0,
        _include(found, _GET_INCLUDE),
    )


def decode_query(body: bytes) -> Query:
    known = ("ids", "where", "where_document", "query_embeddings", "query_texts", "n_results", "include")
    found = _object(body, known)
    raw = found.get("query_embeddings")
    rows: list[NDArray[np.float32]] | None = None
    texts: list[str] | None = None
    if raw is not None:
        rows = _query_rows(raw)
    elif "query_texts" in found:
        texts = _string_list(found["query_texts"])
    else:
        raise Undecodable
    n_results = _optional(found.get("n_results"), _u32)
    return Query(
        rows,
        texts,
        10 if n_results is None else n_results,
        _optional(found.get("ids"), _string_list),
        _filter(found.get("where")),
        _filter(found.get("where_document")),
        _include(found, _QUERY_INCLUDE),
    )


def decode_delete(body: bytes) -> Delete:
    found = _object(body, ("ids", "where", "where_document", "limit"))
    return Delete(
        _optional(found.get("ids"), _strings),
        _filter(found.get("where")),
        _filter(found.get("where_document")),
        _optional(found.get("limit"), _u32),
    )


def decode_new_collection(body: bytes) -> NewCollection:
    found = _object(body, ("name", "metadata", "configuration", "schema", "get_or_create"))
    return NewCollection(
        _string(found.get("name")),
        _optional(found.get("metadata"), _collection_metadata(nullable=False)),
        _optional(found.get("configuration"), _document),
        _optional(found.get("schema"), _document),
        _bool(found.get("get_or_create", False)),
    )


def decode_collection_change(body: bytes) -> CollectionChange:
    found = _object(body, ("new_name", "new_metadata", "new_configuration"))
    return CollectionChange(
        _optional(found.get("new_name"), _string),
        _optional(found.get("new_metadata"), _collection_metadata(nullable=True)),
        _optional(found.get("new_configuration"), _document),
    )


def decode_name(body: bytes, field: str = "name") -> str:
    """The one string that creating a tenant or database, patching a tenant or forking asks for."""
    return _string(_object(body, (field,)).get(field))


def decode_attach(body: bytes) -> None:
    """Only whether the body is one that Chroma reads: it then has no use for it."""
    found = _object(body, ("name", "function_id", "output_collection", "params"))
    for field in ("name", "function_id", "output_collection"):
        _string(found.get(field))


def decode_detach(body: bytes) -> None:
    """As `decode_attach`."""
    _bool(_object(body, ("delete_output",)).get("delete_output", False))


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
    if not _UNSIGNED.fullmatch(text) or int(text) > MAX_U32:
        raise Undecodable
    return int(text)


# ------------------------------------------------------------------------------------- fields


def _object(body: bytes, known: tuple[str, ...]) -> dict[str, Any]:
    try:
        found: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Undecodable from None
    if type(found) is not dict or _repeats(body, known):
        raise Undecodable
    return cast("dict[str, Any]", found)


def _repeats(body: bytes, known: tuple[str, ...]) -> bool:
    """Whether a field is given twice, which Chroma refuses and orjson does not see."""
    if not any(body.count(f'"{name}"'.encode()) > 1 for name in known):
        return False
    outermost: list[str] = []

    def keep(pairs: list[tuple[str, Any]]) -> None:
        outermost[:] = [key for key, _ in pairs]

    json.loads(body, object_pairs_hook=keep)
    return any(outermost.count(name) > 1 for name in known)


def _optional(value: Any, read: Callable[[Any], Any]) -> Any:
    return None if value is None else read(value)


def _string(value: Any) -> str:
    if type(value) is not str:
        raise Undecodable
    return value


def _bool(value: Any) -> bool:
    if type(value) is not bool:
        raise Undecodable
    return value


def _u32(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MAX_U32:
        raise Undecodable
    return value


def _string_list(value: Any) -> list[str]:
    if type(value) is not list or not _kinds(value) <= {str}:
        raise Undecodable
    return cast("list[str]", value)


def _strings(value: Any) -> tuple[str, ...]:
    return tuple(_string_list(value))


def _maybe_strings(value: Any) -> tuple[str | None, ...]:
    if type(value) is not list or not _kinds(value) <= {str, type(None)}:
        raise Undecodable
    return tuple(cast("list[str | None]", value))


def _kinds(values: Any) -> set[type[Any]]:
    return set(map(type, values))


def _include(found: dict[str, Any], default: tuple[str, ...]) -> list[str]:
    if "include" not in found:
        return list(default)
    include = _string_list(found["include"])
    if not _INCLUDES.issuperset(include):
        raise Undecodable
    return include


def _filter(value: Any) -> str | None:
    """A filter as JSON text, which Chroma will read; null is none."""
    if value is None:
        return None
    _check_depth(value)
    return orjson.dumps(value).decode()


def _document(value: Any) -> str:
    if type(value) is not dict:
        raise Undecodable
    _check_depth(value)
    return orjson.dumps(value).decode()


def _check_depth(value: Any) -> None:
    """Raises:
    Undecodable: nested so deeply that Chroma's JSON reader gives up on the body around it.
    """
    level = _containers([value])
    for _ in range(_DEEPEST):
        if not level:
            return
        level = _containers(child for one in level for child in _children(one))
    raise Undecodable


def _containers(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if type(value) is dict or type(value) is list]


def _children(value: Any) -> Iterable[Any]:
    return cast("dict[str, Any]", value).values() if type(value) is dict else cast("list[Any]", value)


# ----------------------------------------------------------------------------------- metadata


def _metadatas(value: Any, *, nullable: bool) -> tuple[tuple[Metadata | None, ...] | None, str | None]:
    """Record metadata, and Chroma's objection to the first bad one."""
    if value is None:
        return None, None
    if type(value) is not list:
        raise Undecodable
    problem: str | None = None
    read: list[Metadata | None] = []
    for index, one in enumerate(cast("list[Any]", value)):
        if one is None:
            read.append(None)
            continue
        metadata, good = _metadata(one, nullable=nullable, drop_empty=not nullable)
        read.append(metadata)
        if not good and problem is None:
            problem = f"Invalid metadata at index {index}"
    return tuple(read), problem


def _collection_metadata(*, nullable: bool) -> Callable[[Any], Metadata]:
    return lambda value: _metadata(value, nullable=nullable, drop_empty=False, keep_empty=True)[0]


def _metadata(
    value: Any, *, nullable: bool, drop_empty: bool, keep_empty: bool = False
) -> tuple[Metadata, bool]:
    """One metadata object in the types of the engine, and whether Chroma's validation passes it.

    An empty list leaves no trace in Chroma's storage: in an add it is dropped, in an update it
    takes the key away.
    """
    if type(value) is not dict:
        raise Undecodable
    good = True
    read: Metadata = {}
    for key, given in cast("Metadata", value).items():
        good = good and key != "" and key[0] not in "#$"
        kind = cast("type[Any]", type(given))
        if kind is str or kind is bool or kind is float:
            read[key] = given
        elif kind is int:
            read[key] = given if -_MAX_I64 - 1 <= given <= _MAX_I64 else float(given)
        elif given is None:
            if not nullable:
                raise Undecodable
            read[key] = None
        elif kind is list:
            if given or keep_empty:
                read[key] = _metadata_list(given)
            elif not drop_empty:
                read[key] = None
        else:
            sparse, sorted_ = _sparse(given)
            read[key] = sparse
            good = good and sorted_
    return read, good


def _harmful(
    metadatas: tuple[Metadata | None, ...] | None, documents: tuple[str | None, ...] | None
) -> Refusal | None:
    """Refuse what Chroma takes and then breaks on, for good: no write is taken any more."""
    for at, metadata in enumerate(metadatas or ()):
        if metadata is None or type(metadata.get(_DOCUMENT_KEY, "")) is str:
            continue
        if documents is None or at >= len(documents) or documents[at] is None:
            return invalid(
                f"Invalid metadata at index {at}: {_DOCUMENT_KEY} is where Chroma keeps the document, and "
                "any value but a string there stops it for good. Nothing was changed."
            )
    return None


def _metadata_list(values: list[Any]) -> list[Any]:
    kinds = _kinds(values)
    if len(kinds) <= 1 and kinds <= {str, bool, int}:
        if kinds == {int} and not all(-_MAX_I64 - 1 <= value <= _MAX_I64 for value in values):
            return [float(value) for value in values]
        return values
    if kinds <= _NUMBERS:
        return [float(value) for value in values]
    raise Undecodable


def _sparse(value: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """A sparse vector, and whether Chroma's validation passes it."""
    indices, values, tokens = value.get("indices"), value.get("values"), value.get("tokens")
    if value.get("#type") not in (None, "sparse_vector"):
        raise Undecodable
    if type(indices) is not list or type(values) is not list or not _kinds(values) <= _NUMBERS:
        raise Undecodable
    for index in cast("list[Any]", indices):
        _u32(index)
    read: dict[str, Any] = {"#type": "sparse_vector", "indices": indices, "values": values}
    lengths = [len(cast("list[Any]", values))]
    if tokens is not None:
        read["tokens"] = _string_list(tokens)
        lengths.append(len(tokens))
    positions = cast("list[int]", indices)
    rising = all(low < high for low, high in itertools.pairwise(positions))
    return read, rising and all(length == len(positions) for length in lengths)


# ------------------------------------------------------------------------------------ vectors

_EMPTY: Final = "embeddings: Each embedding must have at least 1 dimension"
_NOT_FINITE: Final = "embeddings: Embeddings must not contain NaN or Infinity values"


def _vectors(raw: Any, *, nullable: bool) -> tuple[Vectors, Refusal | str | None]:
    """Embeddings and Chroma's objection to them (a validation line, a refusal, or `ASK`)."""
    if type(raw) is not list:
        raise Undecodable
    given = cast("list[Any]", raw)
    kinds = _kinds(given)
    if type(None) in kinds:
        if not nullable:
            raise Undecodable
        kinds.discard(type(None))
    if kinds <= {list}:
        matrix = _matrix(given)
        if matrix is not None:
            data, size = matrix.tobytes(), matrix.shape[1] * 4
            cut = tuple(data[start : start + size] for start in range(0, len(data), size))
            problem = None if np.isfinite(matrix).all() else _NOT_FINITE
            return Vectors(cut, matrix.shape[1]), problem
        rows = [None if row is None else _floats(row) for row in given]
        return _collect([None if row is None else row.tobytes() for row in rows])
    if kinds <= {str}:
        return _from_base64(given)
    raise Undecodable


def _matrix(rows: list[Any]) -> NDArray[np.float32] | None:
    """All rows at once if they are of one length, which is the case that must be fast."""
    if not rows or rows[0] is None or not rows[0]:
        return None
    length = len(rows[0])
    for row in rows:
        if row is None or len(row) != length:
            return None
        if not _kinds(row) <= _NUMBERS:
            raise Undecodable
    with np.errstate(over="ignore"):
        return np.array(rows, dtype="<f4")


def _floats(row: Any) -> NDArray[np.float32]:
    if type(row) is not list or not _kinds(row) <= _NUMBERS:
        raise Undecodable
    with np.errstate(over="ignore"):
        return np.array(row, dtype="<f4")


def _from_base64(given: list[Any]) -> tuple[Vectors, Refusal | str | None]:
    rows: list[bytes | None] = []
    for text in given:
        if text is None:
            rows.append(None)
            continue
        try:
            row = binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
        except (binascii.Error, UnicodeEncodeError):
            return Vectors((), None), ASK
        if b64encode(row).decode() != text:
            return Vectors((), None), ASK
        if len(row) % 4:
            return Vectors((), None), invalid(
                f"Invalid byte length: {len(row)} bytes cannot be converted to f32 values (must be "
                "divisible by 4)"
            )
        values = np.frombuffer(row, dtype="<f4")
        finite = np.isfinite(values)
        if not finite.all():
            index = int(np.argmin(finite))
            value = float(values[index])
            shown = "NaN" if math.isnan(value) else ("inf" if value > 0 else "-inf")
            return Vectors((), None), invalid(f"Non-finite float value at embedding index {index}: {shown}")
        rows.append(row)
    return _collect(rows)


def _collect(rows: list[bytes | None]) -> tuple[Vectors, Refusal | str | None]:
    lengths = {len(row) for row in rows if row is not None}
    problem: str | None = None
    if 0 in lengths:
        problem = _EMPTY
    elif not all(row is None or np.isfinite(np.frombuffer(row, dtype="<f4")).all() for row in rows):
        problem = _NOT_FINITE
    dimension = lengths.pop() // 4 if len(lengths) == 1 else None
    return Vectors(tuple(rows), dimension, ragged=bool(lengths)), problem


def _query_rows(raw: Any) -> list[NDArray[np.float32]]:
    if type(raw) is not list:
        raise Undecodable
    return [_floats(row) for row in cast("list[Any]", raw)]


def _validation_lines(problem: Refusal | str | None) -> list[str]:
    return [problem] if isinstance(problem, str) else []


def _validation(lines: list[str]) -> Refusal:
    return invalid("Validation error: " + "\n".join(lines))


def _as_refusal(problem: Refusal | str) -> Refusal:
    return _validation([problem]) if isinstance(problem, str) else problem
