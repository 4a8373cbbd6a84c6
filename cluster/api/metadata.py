"""Metadata of records and collections, in the types of the engine; pure."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final, cast

from cluster.api.fields import NUMBERS, Undecodable, kinds_of, read_strings, read_u32
from cluster.api.names import invalid

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.errors import Refusal
    from cluster.state.commands import Metadata

_MAX_I64: Final = 2**63 - 1
#: Where Chroma keeps the document among the metadata.
_DOCUMENT_KEY: Final = "chroma:document"


def read_metadatas(value: Any, *, nullable: bool) -> tuple[tuple[Metadata | None, ...] | None, str | None]:
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


def collection_metadata(*, nullable: bool) -> Callable[[Any], Metadata]:
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


def harmful(
    metadatas: tuple[Metadata | None, ...] | None, documents: tuple[str | None, ...] | None
) -> Refusal | None:
    """Refuse what Chroma takes and then breaks on, for good: no write is taken any more.

    Any value does under the key of the uri (tried, also with the directory opened again).
    """
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
    kinds = kinds_of(values)
    if len(kinds) <= 1 and kinds <= {str, bool, int}:
        if kinds == {int} and not all(-_MAX_I64 - 1 <= value <= _MAX_I64 for value in values):
            return [float(value) for value in values]
        return values
    if kinds <= NUMBERS:
        return [float(value) for value in values]
    raise Undecodable


def _sparse(value: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """A sparse vector, and whether Chroma's validation passes it."""
    indices, values, tokens = value.get("indices"), value.get("values"), value.get("tokens")
    if value.get("#type") not in (None, "sparse_vector"):
        raise Undecodable
    if type(indices) is not list or type(values) is not list or not kinds_of(values) <= NUMBERS:
        raise Undecodable
    for index in cast("list[Any]", indices):
        read_u32(index)
    read: dict[str, Any] = {"#type": "sparse_vector", "indices": indices, "values": values}
    lengths = [len(cast("list[Any]", values))]
    if tokens is not None:
        read["tokens"] = read_strings(tokens)
        lengths.append(len(tokens))
    positions = cast("list[int]", indices)
    rising = all(low < high for low, high in itertools.pairwise(positions))
    return read, rising and all(length == len(positions) for length in lengths)
