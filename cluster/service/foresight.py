"""Whether the outcome of a record write is known already when its entry is committed.

Outcomes are decided when entries are applied, from the state that the entries before left. At its commit
a write's outcome is known if what is not applied yet cannot change it: then it may be answered. Else the
answer waits for the applier, as with `ack=applied`. In doubt it waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.errors import Refusal
from cluster.state.catalog import decide
from cluster.state.commands import DeleteRecords, WriteRecords

if TYPE_CHECKING:
    import asyncio

    from cluster.raft.interface import Position
    from cluster.state.catalog import Catalog
    from cluster.state.commands import Command


class Foresight:
    """What the leader knows of the entries that it has not applied yet. Belongs to one event loop.

    All entries after the first of its own in a term are its own, so of these it knows which change the
    catalogue. What stands before that one may be anything.
    """

    def __init__(self) -> None:
        self._term: int | None = None
        self._unclear_until = 0

    def watch(self, command: Command, position: asyncio.Future[Position]) -> None:
        """This command was proposed; to be told of every one, before anybody waits for `position`."""
        is_plain = isinstance(command, WriteRecords | DeleteRecords)
        position.add_done_callback(lambda future: self._note(future, is_plain=is_plain))

    def _note(self, position: asyncio.Future[Position], *, is_plain: bool) -> None:
        if position.cancelled():
            return
        if position.exception() is not None:
            self._term = None  # it may stand in the log all the same
            return
        found = position.result()
        if found.term != self._term:
            self._term = found.term
            self._unclear_until = max(self._unclear_until, found.index - 1)
        if not is_plain:
            self._unclear_until = max(self._unclear_until, found.index)

    def is_accepted(self, command: WriteRecords, catalog: Catalog, applied_index: int) -> bool:
        """Whether the log surely accepts this write, which is committed; its request is a new one.

        `applied_index` was taken before `catalog` is looked into.
        """
        if applied_index < self._unclear_until:
            return False
        try:
            # The first write of a collection sets its dimension and its model: one that is not applied yet
            # may set others than this one has.
            return decide(catalog, command).after is None
        except Refusal:
            return False
