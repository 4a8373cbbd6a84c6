"""What the machine asks of the engine: one call that changes it, or a read before a change; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from cluster.state.commands import Command, DeleteRecords, WriteRecords

#: The most records that Chroma takes in one call, as its pre-flight check says: it binds six variables a
#: record in one statement, and its SQLite takes 32,766 of them. Clients split their writes by it.
MAX_BATCH_SIZE: Final = 5461


@dataclass(frozen=True, slots=True)
class Target:
    """The collection that a call is about; `name` is its name before the call."""

    tenant: str
    database: str
    name: str
    collection_id: str


@dataclass(frozen=True, slots=True)
class Call:
    """One call that changes the engine.

    A `WriteRecords` or ids-only `DeleteRecords` here may be merged from several proposals or be one
    part of a big one. `index` is the last entry it covers, `target` is None for tenants, databases
    and reset. `dropped` names the collections that are gone afterwards (delete, reset).
    Repeating a call right after itself must change nothing: "already there" on a create and "not
    found" on a delete mean done.
    """

    command: Command
    target: Target | None
    index: int
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Resolve:
    """Read from the engine the ids that this delete by filter removes, and give them to `resolved`.

    That is `get(ids, where, where_document, limit)` on the target; nothing is changed yet. The
    ids become part of the durable state before any is deleted.
    """

    command: DeleteRecords
    target: Target
    index: int


@dataclass(frozen=True, slots=True)
class Remember:
    """Read from the engine what this write of several calls is about to change, and give it to `remembered`.

    Nothing is changed yet. It becomes part of the durable state before the first call, for a later one may
    be refused, and then the ones before it are undone (`cluster.state.undo`).
    """

    command: WriteRecords
    target: Target
    index: int


Work: TypeAlias = Call | Resolve | Remember
