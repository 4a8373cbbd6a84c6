"""Writes that the cluster agreed to refuse because engines fail on them, and what that did to collections.

Pure, replicated. A refusal that was carried out leaves a note (`s/<index>/<position>/<part>`), by which a
replica that comes to the agreement itself (`RefuseEntry`, later in the log) knows that it did not apply
the write. Per collection (`a/<id>`) the refusals in a row are counted; after `ASIDE_AFTER` of them, or if
it could not be read after one, the collection is set aside: it takes no writes until it is deleted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import msgpack

from cluster.errors import FILLED_BY_OTHERS, Fault, Refusal
from cluster.state.catalog import Change, Outcome
from cluster.state.commands import DeleteRecords, UpdateCollection, WriteRecords

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cluster.state.commands import Command, RefuseEntry

NOTE: Final = "s/"
TROUBLE: Final = "a/"
#: So many refused writes in a row, with no good write between them, set a collection aside.
ASIDE_AFTER: Final = 3


class Point(NamedTuple):
    """One engine call in the log: entry, proposal in it, and calls of that proposal done before."""

    entry: int
    position: int
    part: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """`refused` writes in a row; `is_broken`: it could not be read after one of them."""

    refused: int
    is_broken: bool
    cause: str

    @property
    def is_aside(self) -> bool:
        return self.is_broken or self.refused >= ASIDE_AFTER


class RefusalTable:
    """Notes and troubles, changed only through `put`; and agreements known from the log ahead.

    `broken` and `trouble` may be asked from any thread: single look-ups in dictionaries.
    """

    def __init__(self) -> None:
        self._notes: set[Point] = set()
        self._troubles: dict[str, Trouble] = {}
        # Not durable: whoever applies reads them again from the log.
        self._agreed: dict[Point, RefuseEntry] = {}

    @staticmethod
    def owns(key: str) -> bool:
        """Whether this key of the durable state is this table's."""
        return key.startswith((NOTE, TROUBLE))

    def put(self, change: Change) -> None:
        """Make one change part of the table."""
        if change.key.startswith(NOTE):
            point = Point(*map(int, change.key.removeprefix(NOTE).split("/")))
            self._notes.add(point)
            self._agreed.pop(point, None)
            return
        collection_id = change.key.removeprefix(TROUBLE)
        if change.value is None:
            self._troubles.pop(collection_id, None)
        else:
            self._troubles[collection_id] = Trouble(*msgpack.unpackb(change.value))

    def items(self) -> list[tuple[str, bytes]]:
        """The whole table as pairs sorted by key."""
        notes = [(_note(point).key, b"") for point in self._notes]
        return sorted([*notes, *((TROUBLE + name, _pack(one)) for name, one in self._troubles.items())])

    # ------------------------------------------------------------------------- agreements

    def expect(self, agreement: RefuseEntry) -> None:
        """A committed agreement that is still ahead; for one write the first in the log counts."""
        point = Point(agreement.index, agreement.position, agreement.part)
        if point not in self._notes:
            self._agreed.setdefault(point, agreement)

    def agreed(self, point: Point) -> RefuseEntry | None:
        """How the call at this point is to be refused, or None: it is to be made."""
        return self._agreed.get(point)

    def meet(self, agreement: RefuseEntry, index: int) -> Outcome:
        """The agreement itself is the next in the log, at `index`: this replica must have followed it.

        Raises:
            Fault: it applied the write that the others refused.
        """
        point = Point(agreement.index, agreement.position, agreement.part)
        if point.entry >= index:
            body = {"error": "InvalidArgumentError", "message": "Only an earlier write can be refused."}
            return Outcome(400, body)
        if point not in self._notes:
            raise Fault(
                f"By log entry {index} the cluster refuses write {point.position} of log entry "
                f"{point.entry}, on which a majority's engines failed ({agreement.message}); this node "
                "had applied it, so what it holds differs from the others. Nothing more is applied here. "
                f"{FILLED_BY_OTHERS}"
            )
        return Outcome(200, {})

    # --------------------------------------------------------------------------- troubles

    def trouble(self, collection_id: str) -> Trouble | None:
        """What refused writes did to this collection; None: nothing."""
        return self._troubles.get(collection_id)

    def broken(self) -> tuple[str, ...]:
        """Collections that could not be read any more: reading one may take the engine down."""
        return tuple(name for name, trouble in list(self._troubles.items()) if trouble.is_broken)

    def check(self, command: Command) -> None:
        """Whether the collection that `command` writes to takes writes.

        Raises:
            Refusal: it is set aside.
        """
        collection_id = collection_of(command)
        trouble = None if collection_id is None else self._troubles.get(collection_id)
        if collection_id is not None and trouble is not None and trouble.is_aside:
            raise set_aside(collection_id, trouble)

    def refuse(self, point: Point, command: Command, agreement: RefuseEntry) -> list[Change]:
        """What a refusal that is carried out changes: the note, and the trouble of the collection."""
        changes = [_note(point)]
        collection_id = collection_of(command)
        if collection_id is not None:
            before = self._troubles.get(collection_id)
            refused = 1 if before is None else before.refused + 1
            broken = agreement.broken or (before is not None and before.is_broken)
            trouble = Trouble(refused, broken, agreement.message)
            changes.append(Change(TROUBLE + collection_id, _pack(trouble)))
        return changes

    def spoil(self, collection_id: str, outcome: Outcome) -> list[Change]:
        """What changes when the collection has a part of a write, as `outcome` says: nobody may read it."""
        before = self._troubles.get(collection_id)
        trouble = Trouble(before.refused if before is not None else 0, True, str(outcome.body["message"]))
        return [Change(TROUBLE + collection_id, _pack(trouble))]

    def forget(self, collection_ids: Iterable[str]) -> list[Change]:
        """What a good write to these collections changes, or their end: no trouble any more."""
        return [Change(TROUBLE + name, None) for name in collection_ids if name in self._troubles]


def collection_of(command: Command) -> str | None:
    """The collection that a write goes into; None for what creates or deletes."""
    if isinstance(command, WriteRecords | DeleteRecords | UpdateCollection):
        return command.collection_id
    return None


def set_aside(collection_id: str, trouble: Trouble) -> Refusal:
    """The answer to what a collection that is set aside does not take."""
    why = (
        "its last write left it unreadable"
        if trouble.is_broken
        else f"its last {trouble.refused} writes all made Chroma fail"
    )
    return Refusal(
        500,
        "CollectionSetAsideError",
        f"Collection [{collection_id}] is set aside: {why} ({trouble.cause}). Nothing was changed; all other "
        "collections go on. Delete it and create it anew.",
    )


def _note(point: Point) -> Change:
    return Change(f"{NOTE}{point.entry}/{point.position}/{point.part}", b"")


def _pack(trouble: Trouble) -> bytes:
    return msgpack.packb((trouble.refused, trouble.is_broken, trouble.cause))
