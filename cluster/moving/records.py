"""A record as a client sees it, exactly: types of values count, and each bit of the vector; pure."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

#: The digest of no records.
NOTHING: Final = bytes(32)
_VALUES_AT_ONCE: Final = 100_000
_BYTES_AT_ONCE: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Record:
    """`key` is its id; `vector` is 32-bit floats, little endian; None is what the record does not have."""

    key: str
    vector: bytes
    document: str | None
    uri: str | None
    metadata: Mapping[str, Any] | None

    @property
    def size(self) -> int:
        """About how many bytes it takes in a request."""
        texts = len(self.key) + len(self.document or "") + len(self.uri or "")
        strings = sum(len(key) + len(str(value)) for key, value in (self.metadata or {}).items())
        return texts + strings + len(self.vector) * 4 // 3 + 64

    @property
    def values(self) -> int:
        """How many metadata values it has, those in lists one by one."""
        found = (self.metadata or {}).values()
        return sum(len(cast("list[Any]", value)) if isinstance(value, list) else 1 for value in found)


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same for a client: 1, 1.0 and true are three values."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        mine, theirs = cast("dict[str, Any]", one), cast("dict[str, Any]", other)
        return mine.keys() == theirs.keys() and all(same(mine[key], theirs[key]) for key in mine)
    if isinstance(one, list):
        items, others = cast("list[Any]", one), cast("list[Any]", other)
        return len(items) == len(others) and all(map(same, items, others))
    if isinstance(one, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return bool(one == other)


def differing(one: Record, other: Record) -> list[str]:
    """The fields in which two records of one id differ."""
    fields = [name for name in ("vector", "document", "uri") if getattr(one, name) != getattr(other, name)]
    if not same(one.metadata, other.metadata):
        mine, theirs = one.metadata or {}, other.metadata or {}
        keys = [
            key
            for key in sorted({*mine, *theirs})
            if key not in mine or key not in theirs or not same(mine[key], theirs[key])
        ]
        fields += [f"metadata {key!r}" for key in keys] or ["metadata"]
    return fields


def chained(before: bytes, records: Iterable[Record]) -> bytes:
    """The digest of a sequence of records, from that of the ones before."""
    for record in records:
        told = json.dumps(record.metadata, sort_keys=True, separators=(",", ":"))
        parts = (before, record.key, record.vector, record.document, record.uri, told)
        digest = hashlib.sha256()
        for part in parts:
            data = part.encode() if isinstance(part, str) else part
            digest.update(b"-" if data is None else b"%d:" % len(data) + data)
        before = digest.digest()
    return before


def batches(records: Sequence[Record], most: int) -> Iterator[Sequence[Record]]:
    """The records in order, as many at once as one request takes: `most`, 8 MiB, 100,000 metadata values."""
    start = size = values = 0
    for at, record in enumerate(records):
        too_much = size + record.size > _BYTES_AT_ONCE or values + record.values > _VALUES_AT_ONCE
        if at > start and (too_much or at - start >= most):
            yield records[start:at]
            start, size, values = at, 0, 0
        size += record.size
        values += record.values
    if start < len(records):
        yield records[start:]
