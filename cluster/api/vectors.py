"""Embeddings, as JSON numbers or base64, to float32 bytes; pure."""

from __future__ import annotations

import binascii
import math
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from cluster.api.fields import ASK, NUMBERS, Undecodable, kinds_of
from cluster.api.names import invalid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cluster.errors import Refusal

_EMPTY: Final = "embeddings: Each embedding must have at least 1 dimension"
_NOT_FINITE: Final = "embeddings: Embeddings must not contain NaN or Infinity values"


@dataclass(frozen=True, slots=True)
class DecodedVectors:
    """Decoded embeddings: float32 bytes a record; `dimension` is None if ragged or none is given."""

    rows: tuple[bytes | None, ...]
    dimension: int | None
    ragged: bool = False


def read_vectors(raw: Any, *, nullable: bool) -> tuple[DecodedVectors, Refusal | str | None]:
    """Embeddings and Chroma's objection to them (a validation line, a refusal, or `ASK`)."""
    if type(raw) is not list:
        raise Undecodable
    given = cast("list[Any]", raw)
    kinds = kinds_of(given)
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
            return DecodedVectors(cut, matrix.shape[1]), problem
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
        if not kinds_of(row) <= NUMBERS:
            raise Undecodable
    with np.errstate(over="ignore"):
        return np.array(rows, dtype="<f4")


def _floats(row: Any) -> NDArray[np.float32]:
    if type(row) is not list or not kinds_of(row) <= NUMBERS:
        raise Undecodable
    with np.errstate(over="ignore"):
        return np.array(row, dtype="<f4")


def _from_base64(given: list[Any]) -> tuple[DecodedVectors, Refusal | str | None]:
    rows: list[bytes | None] = []
    for text in given:
        if text is None:
            rows.append(None)
            continue
        try:
            row = binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
        except (binascii.Error, UnicodeEncodeError):
            return DecodedVectors((), None), ASK
        if b64encode(row).decode() != text:
            return DecodedVectors((), None), ASK
        if len(row) % 4:
            return DecodedVectors((), None), invalid(
                f"Invalid byte length: {len(row)} bytes cannot be converted to f32 values (must be "
                "divisible by 4)"
            )
        values = np.frombuffer(row, dtype="<f4")
        finite = np.isfinite(values)
        if not finite.all():
            index = int(np.argmin(finite))
            value = float(values[index])
            shown = "NaN" if math.isnan(value) else ("inf" if value > 0 else "-inf")
            return DecodedVectors((), None), invalid(
                f"Non-finite float value at embedding index {index}: {shown}"
            )
        rows.append(row)
    return _collect(rows)


def _collect(rows: list[bytes | None]) -> tuple[DecodedVectors, Refusal | str | None]:
    lengths = {len(row) for row in rows if row is not None}
    problem: str | None = None
    if 0 in lengths:
        problem = _EMPTY
    elif not all(row is None or np.isfinite(np.frombuffer(row, dtype="<f4")).all() for row in rows):
        problem = _NOT_FINITE
    dimension = lengths.pop() // 4 if len(lengths) == 1 else None
    return DecodedVectors(tuple(rows), dimension, ragged=bool(lengths)), problem


def read_query_rows(raw: Any) -> list[NDArray[np.float32]]:
    if type(raw) is not list:
        raise Undecodable
    return [_floats(row) for row in cast("list[Any]", raw)]
