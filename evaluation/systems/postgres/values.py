"""Metadata and vectors in the forms in which Postgres keeps them; pure."""

from __future__ import annotations

import struct
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

#: From here on a float is printed with an exponent, and jsonb would take it for an integer.
_WHOLE_FROM: Final = 1e16
_ZERO: Final = "\x00"
#: Chroma keeps documents and URIs under such keys, and shows none of them.
_OWN: Final = "chroma:"


class Unstorable(ValueError):
    """Postgres does not store a zero character in a text."""


def metadata_text(metadata: Mapping[str, Any] | None) -> str | None:
    """JSON for a jsonb column, from which each number comes back as the int or float that it was.

    Raises:
        Unstorable: a text in it holds a zero character.
    """
    if metadata is None:
        return None
    shown = {key: _explicit(value) for key, value in metadata.items() if not key.startswith(_OWN)}
    text = orjson.dumps(shown).decode()
    if "\\u0000" in text:
        for key, value in metadata.items():
            check_text(key, *(_texts(value)))
    return text


def check_text(*texts: str | None) -> None:
    """Raises:
    Unstorable: one holds a zero character.
    """
    if any(text is not None and _ZERO in text for text in texts):
        raise Unstorable("Postgres does not store a text with a zero character in it. Nothing was changed.")


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    items = cast("list[Any]", value) if isinstance(value, list) else []
    return [item for item in items if isinstance(item, str)]


def _explicit(value: Any) -> Any:
    if type(value) is float and abs(value) >= _WHOLE_FROM:
        return orjson.Fragment(f"{Decimal(repr(value)):f}.0".encode())
    if type(value) is list:
        return [_explicit(item) for item in cast("list[Any]", value)]
    return value


def encode_vector(row: bytes) -> bytes:
    """pgvector's binary form of float32 little-endian bytes."""
    return struct.pack(">HH", len(row) // 4, 0) + np.frombuffer(row, dtype="<f4").astype(">f4").tobytes()


def decode_vector(data: bytes) -> NDArray[np.float32]:
    """The inverse of `encode_vector`, as an array."""
    return np.frombuffer(data, dtype=">f4", offset=4).astype(np.float32)
