"""What is written so that Chroma keeps a record as it is, and what it keeps if that cannot be.

Everything that a Chroma of 1.x shows can be written so that another shows the same. What another program kept
(a Chroma before 1.0, for example) may hold vectors or numbers for which that is impossible.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from cluster.moving import cosine, exact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cluster.moving.records import Record


def to_write(records: Sequence[Record], *, is_cosine: bool) -> list[Record]:
    """The records as they must be written to be kept as they are here, where that can be."""
    return _changed(records, _number_to_write, cosine.to_write, is_cosine)


def kept(records: Sequence[Record], *, is_cosine: bool) -> list[Record]:
    """The records as they are kept after `to_write`: the same objects, or others with other last bits."""
    return _changed(records, _number_kept, _vectors_kept, is_cosine)


def _changed(
    records: Sequence[Record],
    number: Callable[[float], float],
    vectors: Callable[[Sequence[bytes]], Sequence[bytes | None]],
    is_cosine: bool,
) -> list[Record]:
    found = list(records)
    if is_cosine:
        for at, vector in enumerate(vectors([one.vector for one in records])):
            if vector is not None and vector != found[at].vector:
                found[at] = replace(found[at], vector=vector)
    for at, one in enumerate(found):
        metadata = _metadata(one.metadata, number)
        if metadata is not one.metadata:
            found[at] = replace(one, metadata=metadata)
    return found


def _metadata(
    metadata: Mapping[str, Any] | None, number: Callable[[float], float]
) -> Mapping[str, Any] | None:
    changed: dict[str, Any] = {}
    for key, value in (metadata or {}).items():
        if isinstance(value, float):
            new: Any = number(value)
            differs = new != value
        elif isinstance(value, list):
            items = cast("list[Any]", value)
            new = [number(item) if isinstance(item, float) else item for item in items]
            differs = new != items
        else:
            continue
        if differs:
            changed[key] = new
    return metadata if not changed else {**(metadata or {}), **changed}


def _number_to_write(number: float) -> float:
    found = exact.to_write(number)
    return number if found is None else found


def _number_kept(number: float) -> float:
    return exact.through_log(number) if exact.to_write(number) is None else number


def _vectors_kept(vectors: Sequence[bytes]) -> list[bytes]:
    pairs = zip(cosine.to_write(vectors), vectors, strict=True)
    return [cosine.as_given_back(vector) if written is None else vector for written, vector in pairs]
