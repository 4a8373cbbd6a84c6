"""What clients did and saw: one `Operation` a line of JSON, so that a saved run can be judged again.

All times are nanoseconds of one monotonic clock, counted from the start of the run. A process has one
operation at a time; after a write of unknown outcome it is retired and its session goes on as another.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, cast

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


class Fate(StrEnum):
    """What became of an operation, as far as its client can prove: an unproven failure is `UNKNOWN`.

    In files, and as a field, it is an operation's `outcome`.
    """

    OK = "ok"
    """It was answered, and `value` is what the answer says; a 404 or 409 about the state is an answer too."""
    REFUSED = "refused"
    """It surely had no effect: no byte was sent, or the answer says so."""
    UNKNOWN = "unknown"
    """It may take effect at any later time, or never. Unknown reads say nothing."""


class Phase(StrEnum):
    """Which part of the scenario the operation began in."""

    WARMUP = "warmup"
    FAULT = "fault"
    HEALED = "healed"
    FINAL = "final"
    """Reads of everything at every entry, after all faults are healed and the system is quiet."""


class Action(StrEnum):
    """What was asked. `value` of each action by workload: see `WORKLOADS`."""

    ADD = "add"
    UPSERT = "upsert"
    UPDATE = "update"
    DELETE = "delete"
    APPEND = "append"
    GET = "get"
    GET_WHERE = "get_where"
    GET_ALL = "get_all"
    COUNT = "count"
    QUERY = "query"
    CREATE = "create"
    DROP = "drop"
    EXISTS = "exists"

    @property
    def is_write(self) -> bool:
        return self in _WRITES


_WRITES = frozenset(
    {Action.ADD, Action.UPSERT, Action.UPDATE, Action.DELETE, Action.APPEND, Action.CREATE, Action.DROP}
)

#: workload -> what its keys and values are.
WORKLOADS: dict[str, str] = {
    "register": (
        "key: a document id. add/upsert/update write `value`, a string never used twice (add changes nothing "
        "where the document exists, update nothing where it does not: both are ok). delete. get and "
        "get_where (by metadata) read: the string, or null for no such document."
    ),
    "set": (
        "key: a collection. add writes `value`, an id never used twice in it. get_all reads: the sorted list "
        "of ids, with repetitions if any. count reads: an integer."
    ),
    "append": (
        "key: a document whose metadata holds a list. append: its only writer read the list, added the "
        "string `value` and wrote it all back. get reads: the list, or null."
    ),
    "counter": (
        "key: a document with one writer that upserts 1, 2, 3, ... get reads: the integer, or null. A key "
        "`K/copy` is written (upsert) with the value that the same session has just read from K; who reads "
        "`K/copy` and then K in one session must find K no smaller (writes follow reads)."
    ),
    "catalogue": (
        "key: a collection's name. create, drop, exists: `value` true when it was created, dropped, there; "
        "false when the answer was 409 (it is there already) or 404 (it is not there)."
    ),
    "batch": (
        "key: a fixed group of documents. upsert writes the string `value` to all of them in one request. "
        "get reads: the list of all their values in one request, null where one is missing. A key `wide-...` "
        "has hundreds of documents, and of its values each is listed once."
    ),
    "query": (
        "key: a document id. query asks for the neighbours of the document's own vector: `value` is the list "
        "of ids found. A measure of quality, never a verdict: neighbours are approximate."
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One request of one client, from its call to its return."""

    id: int
    """Unique in the run; in the order of invocation."""
    workload: str
    process: int
    session: str
    """Whose reads and writes belong together for session guarantees; goes on when a process is retired."""
    entry: str
    """Which address the client used: the name of an `Entry` of the system."""
    action: Action
    key: str
    value: Any
    """Written, or read (None as long as a read has no answer)."""
    level: str
    """Read level asked for: linearizable, session, eventual; `default` on systems without levels. Of a
    write: its `ack` mode (applied, committed) or `default`."""
    phase: Phase
    invoked_ns: int
    returned_ns: int | None
    """None: no answer ever came."""
    outcome: Fate
    status: int | None = None
    error: str = ""
    """What the answer, or the connection, said, if not a success; first 200 characters."""
    node: str | None = None
    """Which member answered, where the system says so."""
    index: int | None = None
    """The log index of the answer, where the system says so; never used by black-box checks."""
    request_id: str | None = None

    @property
    def is_write(self) -> bool:
        return self.action.is_write

    def to_json(self) -> bytes:
        return orjson.dumps(asdict(self))

    @staticmethod
    def from_json(line: bytes) -> Operation:
        """Raises ValueError on what is not an operation of this version."""
        raw = cast("dict[str, Any]", orjson.loads(line))
        unknown = raw.keys() - _FIELDS
        if unknown:
            raise ValueError(f"not an operation of this version: unknown fields {sorted(unknown)}")
        try:
            raw["action"] = Action(raw["action"])
            raw["phase"] = Phase(raw["phase"])
            raw["outcome"] = Fate(raw["outcome"])
            return Operation(**raw)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an operation of this version: {error}") from error


_FIELDS = frozenset(field.name for field in fields(Operation))


def write_history(path: Path, operations: Iterable[Operation]) -> None:
    """One line each, in the order given."""
    with path.open("wb") as file:
        file.writelines(operation.to_json() + b"\n" for operation in operations)


def read_history(path: Path) -> Iterator[Operation]:
    """Raises ValueError, with the line's number, on a damaged line."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield Operation.from_json(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
