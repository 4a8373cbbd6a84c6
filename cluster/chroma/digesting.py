"""Digests of records: equal if and only if what a client can read of them is; pure.

A record has a digest for each of its parts, so that a difference can be named, and one for the whole. Where a
value could be read in two ways its kind and its length are part of what is digested: `1`, `1.0`, `True` and
`"1"` are four values. Floats count by their bits, and vectors as the float32 that Chroma keeps.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, cast

from cluster.chroma.interface import RecordDigest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.chroma.interface import Records

#: The parts of a record, in the order of their digests.
PARTS: Final = ("vector", "document", "metadata", "uri")
PART_BYTES: Final = 8
WHOLE_BYTES: Final = 16
#: Records are spread over so many buckets by a hash of their id.
BUCKETS: Final = 256


def bucket_of(record_id: str) -> int:
    """The bucket of a record, the same on every node and in every process."""
    return _hash(_text(record_id), 1)[0]


def digest_records(records: Records) -> list[RecordDigest]:
    """One for each record; all fields of `records` must have been asked for."""
    count = len(records.ids)
    columns = (
        _column(records.embeddings, count),
        _column(records.documents, count),
        _column(records.metadatas, count),
        _column(records.uris, count),
    )
    found: list[RecordDigest] = []
    for record_id, vector, document, metadata, uri in zip(records.ids, *columns, strict=True):
        parts = b"".join(
            _hash(encoded, PART_BYTES)
            for encoded in (_vector(vector), canonical(document), canonical(metadata or {}), canonical(uri))
        )
        found.append(RecordDigest(record_id, _hash(_text(record_id) + parts, WHOLE_BYTES), parts))
    return found


def digest_value(value: Any) -> bytes:
    """Digest of any value that JSON can have, whatever the order of its keys."""
    return _hash(canonical(value), WHOLE_BYTES)


def canonical(value: Any) -> bytes:
    """Bytes that stand for a JSON-like value and for no other: every kind has its letter, every text and list
    its length, and keys are sorted."""
    match value:
        case None:
            return b"n"
        case bool():
            return b"t" if value else b"f"
        case int():
            return b"i" + _text(str(value))
        case float():
            return b"d" + struct.pack(">d", value)
        case str():
            return b"s" + _text(value)
        case list() | tuple():
            items = cast("Sequence[Any]", value)
            return b"l" + _length(len(items)) + b"".join(canonical(item) for item in items)
        case dict():
            pairs = sorted(cast("dict[str, Any]", value).items())
            body = b"".join(_text(str(key)) + canonical(item) for key, item in pairs)
            return b"m" + _length(len(pairs)) + body
        case _:  # what a later Chroma may answer with: by what it shows of itself
            return b"o" + _text(type(value).__name__) + _text(str(value))


def _vector(vector: Any) -> bytes:
    return b"" if vector is None else struct.pack(f"<{len(vector)}f", *vector)


def _column(values: Sequence[Any] | None, count: int) -> Sequence[Any]:
    return [None] * count if values is None else values


def _text(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogatepass")
    return _length(len(encoded)) + encoded


def _length(size: int) -> bytes:
    return struct.pack(">Q", size)


def _hash(data: bytes, size: int) -> bytes:
    return blake2b(data, digest_size=size).digest()
