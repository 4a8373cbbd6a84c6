"""How a write of several engine calls that fails after the first is undone: all of it happens, or none; pure.

What the write is about to change is read before its first call and made durable (`Before`). If a later part
is refused, by the engine or by the cluster, calls follow that bring that back, one step each. They count as
further parts of the write: the cursor, and agreements to refuse one of them, know them by those numbers.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, cast

import msgpack

from cluster.state.catalog import Outcome
from cluster.state.commands import DeleteRecords, WriteRecords, decode_command, encode_command
from cluster.state.merging import part_of

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Of what is overwritten so many bytes are kept at most, in memory and in the state file. Beyond that the
#: write is not undone, and its answer says so. The same on all nodes, for it decides outcomes.
MAX_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Before:
    """The records with ids of the write that exist before it: `ids`, and they themselves as an add of them
    (None: there are none, or an add leaves them as they are). Not `is_whole`: too large to be kept."""

    ids: tuple[str, ...]
    records: WriteRecords | None = None
    is_whole: bool = True

    def encode(self) -> bytes:
        """The durable form."""
        records = None if self.records is None else encode_command(self.records)
        packed: bytes = msgpack.packb((self.ids, records, self.is_whole))
        return packed

    @staticmethod
    def decode(value: bytes) -> Before:
        """Inverse of `encode`."""
        ids, encoded, is_whole = msgpack.unpackb(value)
        records = None if encoded is None else decode_command(encoded)
        assert records is None or isinstance(records, WriteRecords)
        return Before(tuple(ids), records, is_whole)


@dataclass(frozen=True, slots=True)
class Undoing:
    """A write whose part number `part` was refused with `outcome` is being undone."""

    part: int
    outcome: Outcome

    def encode(self) -> bytes:
        """The durable form."""
        packed: bytes = msgpack.packb((self.part, self.outcome.status, self.outcome.body))
        return packed

    @staticmethod
    def decode(value: bytes) -> Undoing:
        """Inverse of `encode`."""
        part, status, body = msgpack.unpackb(value)
        return Undoing(part, Outcome(status, body))


def parts_of(command: WriteRecords, max_records: int) -> int:
    """How many engine calls the write takes."""
    return -(-len(command.ids) // max_records)


def undoing_calls(
    command: WriteRecords, before: Before, part: int, max_records: int
) -> list[WriteRecords | DeleteRecords]:
    """What brings the collection back to where it was before the first `part` calls of the write.

    Each of them, repeated, changes nothing more. The records of the call that failed are left alone, as those
    of a write of one call are: they may be what the engine fails on.
    """
    touched = tuple(dict.fromkeys(command.ids[: part * max_records]))
    known = set(before.ids)
    if command.kind == "add":
        doomed = [record_id for record_id in touched if record_id not in known]
    elif command.kind == "update":
        doomed = [record_id for record_id in touched if record_id in known]
    else:
        doomed = list(touched)
    calls: list[WriteRecords | DeleteRecords] = [
        DeleteRecords(command.collection_id, tuple(doomed[at : at + max_records]), None, None, None)
        for at in range(0, len(doomed), max_records)
    ]
    if command.kind == "add" or before.records is None:
        return calls
    records = _only(before.records, set(touched))
    again = range(0, len(records.ids), max_records)
    return [*calls, *(part_of(records, at, at + max_records) for at in again)]


def _only(records: WriteRecords, wanted: set[str]) -> WriteRecords:
    kept = [record_id in wanted for record_id in records.ids]

    def cut(column: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        return None if column is None else tuple(itertools.compress(column, kept))

    return replace(
        records,
        ids=tuple(itertools.compress(records.ids, kept)),
        embeddings=cut(records.embeddings),
        metadatas=cut(records.metadatas),
        documents=cut(records.documents),
        uris=cut(records.uris),
    )


def undone(outcome: Outcome) -> Outcome:
    """The answer to a write that was undone."""
    return _with(outcome, "What its first engine calls had written was undone: nothing was changed.")


def not_kept(outcome: Outcome, done: Sequence[str]) -> Outcome:
    """The answer to a write that cannot be undone; its records `done` were written before."""
    return _with(
        outcome,
        f"Its first {len(done)} records (to id {done[-1]!r}) were written before and stay written: what they "
        "replaced was too large to be kept.",
    )


def not_undone(outcome: Outcome, cause: Outcome) -> Outcome:
    """The answer to a write that failed, and whose undoing failed with `cause`."""
    return _with(
        outcome,
        f"Undoing its first engine calls failed too: {_message(cause)} The collection has a part of the "
        "write: it is set aside and not read any more. Delete it.",
    )


def _message(outcome: Outcome) -> str:
    return str(_body(outcome).get("message", ""))


def _with(outcome: Outcome, words: str) -> Outcome:
    return Outcome(outcome.status, {**_body(outcome), "message": f"{_message(outcome)} {words}".strip()})


def _body(outcome: Outcome) -> dict[str, Any]:
    body: Any = outcome.body
    return cast("dict[str, Any]", body) if isinstance(body, dict) else {}
