"""Answers as the bytes that Chroma's own server sends; pure.

Chroma's vectors and distances are 32-bit floats, printed with as few digits as tell them apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.chroma.interface import Neighbours, Records


def encode(body: Any) -> bytes:
    """JSON of a plain value."""
    return orjson.dumps(body)


def encode_error(error: str, message: str) -> bytes:
    """The body of every error."""
    return orjson.dumps({"error": error, "message": message})


def encode_records(found: Records, include: Sequence[str]) -> bytes:
    """The answer to a get."""
    return _dump(
        {
            "ids": found.ids,
            "embeddings": None if found.embeddings is None else _float_rows(found.embeddings),
            "documents": found.documents,
            "uris": found.uris,
            "metadatas": found.metadatas,
            "include": include,
        }
    )


def encode_neighbours(found: Neighbours, include: Sequence[str]) -> bytes:
    """The answer to a query."""
    return _dump(
        {
            "ids": found.ids,
            "embeddings": None
            if found.embeddings is None
            else [_float_rows(rows) for rows in found.embeddings],
            "documents": found.documents,
            "uris": found.uris,
            "metadatas": found.metadatas,
            "distances": None if found.distances is None else _float_rows(found.distances),
            "include": include,
        }
    )


def _dump(body: dict[str, Any]) -> bytes:
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def _float_rows(rows: Sequence[Sequence[float | None] | None]) -> Any:
    """Rows of floats for orjson: an array where possible, for a list prints them as 64-bit."""
    lengths = {-1 if row is None else len(row) for row in rows}
    if len(lengths) == 1 and lengths.isdisjoint({-1, 0}) and not _holds_none(rows):
        return np.asarray(rows, dtype=np.float32)
    return [None if row is None else _float_row(row) for row in rows]


def _float_row(row: Sequence[float | None]) -> Any:
    if any(value is None for value in row):
        return [None if value is None else np.float32(value) for value in row]
    return np.asarray(row, dtype=np.float32)


def _holds_none(rows: Sequence[Sequence[float | None] | None]) -> bool:
    return any(None in row for row in rows if row is not None)
