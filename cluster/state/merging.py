"""One call in place of several neighbouring writes, and parts of a write too big for one call; pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from cluster.state.catalog import has_filter
from cluster.state.commands import DeleteRecords, WriteRecords

if TYPE_CHECKING:
    from collections.abc import Sequence


_RECORD_BYTES: Final = 512


def alike(first: WriteRecords | DeleteRecords, second: WriteRecords | DeleteRecords) -> bool:
    """Whether both together mean in one call what they mean in two, given distinct ids."""
    if first.collection_id != second.collection_id:
        return False
    if isinstance(first, WriteRecords):
        return (
            isinstance(second, WriteRecords)
            and first.kind == second.kind
            # None for an update without vectors, so these differ in shape as well.
            and first.dimension == second.dimension
        )
    return isinstance(second, DeleteRecords) and not has_filter(second)


def merge(commands: list[WriteRecords | DeleteRecords]) -> WriteRecords | DeleteRecords:
    """One command of which each two of `commands` are `alike`, with their records in order."""
    first = commands[0]
    ids = tuple(record_id for command in commands for record_id in command.ids or ())
    if isinstance(first, DeleteRecords):
        return replace(first, ids=ids)
    writes = [command for command in commands if isinstance(command, WriteRecords)]
    return replace(
        first,
        ids=ids,
        embeddings=_column(writes, [write.embeddings for write in writes]),
        metadatas=_column(writes, [write.metadatas for write in writes]),
        documents=_column(writes, [write.documents for write in writes]),
        uris=_column(writes, [write.uris for write in writes]),
        model=next((write.model for write in writes if write.model is not None), None),
    )


def _column(writes: list[WriteRecords], columns: Sequence[tuple[Any, ...] | None]) -> tuple[Any, ...] | None:
    """One column of several writes; where a write has none, None for each of its records.

    To Chroma a column left out and a column of nulls are the same thing in all three kinds (it
    reads both as "no value given": an add stores none, an upsert or update leaves the old one).
    """
    if all(column is None for column in columns):
        return None
    padded = (
        column if column is not None else (None,) * len(write.ids)
        for write, column in zip(writes, columns, strict=True)
    )
    return tuple(value for column in padded for value in column)


def size_of(command: WriteRecords | DeleteRecords) -> int:
    """About how many bytes Chroma has to take: vectors, documents, and what each record costs by itself."""
    records = len(command.ids or ())
    if isinstance(command, DeleteRecords):
        return records * _RECORD_BYTES
    documents = sum(len(document) for document in command.documents or () if document is not None)
    return records * (_RECORD_BYTES + 4 * (command.dimension or 0)) + documents


def part_of(command: WriteRecords, first: int, last: int) -> WriteRecords:
    """The same write of the records from `first` up to, and without, `last`."""

    def cut(column: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        return None if column is None else column[first:last]

    return replace(
        command,
        ids=command.ids[first:last],
        embeddings=cut(command.embeddings),
        metadatas=cut(command.metadatas),
        documents=cut(command.documents),
        uris=cut(command.uris),
    )
