"""What an engine call that failed has left behind: all that it was to do, nothing, or a broken collection."""

from __future__ import annotations

import math
import struct
from enum import Enum
from typing import TYPE_CHECKING, Final

from cluster.chroma.interface import Get
from cluster.errors import ClusterError, EngineUnavailable, Refusal, Unavailable
from cluster.state.commands import DeleteRecords, WriteRecords
from cluster.state.work import Call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.chroma.interface import Engine, Records
    from cluster.state.work import Work

#: Ids in one read: below what SQLite binds in a statement.
_IDS: Final = 1000
#: An index of cosine distances may keep vectors normalised: there only directions are compared.
_TOLERANCE: Final = 1e-3


class Remains(Enum):
    """DONE: everything that the call was to do is there, so it counts as made. UNDONE: it is not.
    BROKEN: the collection cannot be read."""

    DONE = "done"
    UNDONE = "undone"
    BROKEN = "broken"


def examine(engine: Engine, work: Work) -> Remains:
    """Read what `work` was about. An engine may do all of a call and die, or hang, only then.

    Raises:
        EngineUnavailable: it is being started again; ask later.
    """
    target = work.target
    if target is None:
        return Remains.UNDONE
    try:
        engine.count(target.collection_id)
        if not isinstance(work, Call):
            return Remains.UNDONE
        return Remains.DONE if _is_done(engine, work) else Remains.UNDONE
    except Refusal:
        return Remains.UNDONE  # not there (yet, or any more)
    except EngineUnavailable:
        raise
    except Unavailable:
        return Remains.UNDONE  # this node is stopping
    except ClusterError:
        return Remains.BROKEN


def _is_done(engine: Engine, call: Call) -> bool:
    command = call.command
    if isinstance(command, DeleteRecords):
        ids = command.ids or ()
        parts = (ids[at : at + _IDS] for at in range(0, len(ids), _IDS))
        return not any(engine.get(command.collection_id, Get(ids=part, include=())).ids for part in parts)
    if not isinstance(command, WriteRecords):
        return False
    include = ("embeddings", "documents", "metadatas", "uris")
    by_direction = "cosine" in str(engine.collection(command.collection_id).get("configuration_json"))
    for at in range(0, len(command.ids), _IDS):
        wanted = range(at, min(at + _IDS, len(command.ids)))
        ids = [command.ids[number] for number in wanted]
        found = engine.get(command.collection_id, Get(ids=ids, include=include))
        if not _shows(command, wanted, found, by_direction=by_direction):
            return False
    return True


def _shows(command: WriteRecords, wanted: Sequence[int], found: Records, *, by_direction: bool) -> bool:
    rows = {record_id: row for row, record_id in enumerate(found.ids)}
    if command.kind == "add":
        return all(command.ids[number] in rows for number in wanted)  # those that existed stay as they were
    for number in wanted:
        row = rows.get(command.ids[number])
        if row is None:
            if command.kind == "update":
                continue  # an update of what does not exist does nothing
            return False
        vector = None if command.embeddings is None else command.embeddings[number]
        held = None if found.embeddings is None else found.embeddings[row]
        if vector is not None and (held is None or not _is_same(vector, held, by_direction=by_direction)):
            return False
        if not _has_values(command, number, found, row):
            return False
    return True


def _has_values(command: WriteRecords, number: int, found: Records, row: int) -> bool:
    for given, held in ((command.documents, found.documents), (command.uris, found.uris)):
        if given is not None and given[number] is not None and (held is None or held[row] != given[number]):
            return False
    metadata = None if command.metadatas is None else command.metadatas[number]
    if metadata:
        kept = (found.metadatas[row] if found.metadatas is not None else None) or {}
        if any(kept.get(key) != value for key, value in metadata.items()):
            return False
    return True


def _is_same(vector: bytes, held: Sequence[float], *, by_direction: bool) -> bool:
    given = list(struct.unpack(f"<{len(vector) // 4}f", vector))
    if not by_direction or len(given) != len(held):
        return given == list(held)
    length, other = math.hypot(*given) or 1.0, math.hypot(*held) or 1.0
    return all(abs(a / length - b / other) <= _TOLERANCE for a, b in zip(given, held, strict=True))
