"""The engine in a process of its own, so that Chroma's long calls and its deaths never end the node.

Chroma's writing calls hold Python's global lock to their end, and every 1,000 records one of them
writes the collection's whole index to disk: a second and more for a large one. In the node's own
process that would stop raft's heartbeats and the HTTP loop for as long, and cost it the leadership.
Some requests end the process that Chroma runs in (its stack overflows, its memory is out): the
process is started again at once (`cluster.chroma.keeper`), and the node goes on.

The calls travel over socket pairs (`cluster.chroma.channel`) to a child process (`cluster.chroma.child`).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from cluster.chroma.channel import (
    pack_call,
    pack_get,
    pack_query,
    pack_resolve,
    unpack_neighbours,
    unpack_records,
)
from cluster.chroma.gate import Gate
from cluster.chroma.interface import (
    EVERY_RECORD,
    Condition,
    Get,
    Neighbours,
    Query,
    RecordDigest,
    Records,
)
from cluster.chroma.keeper import Keeper, Kept
from cluster.chroma.watchdog import Limits
from cluster.state.catalog import Change
from cluster.state.commands import DeleteRecords, WriteRecords

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from cluster.state.work import Call, Resolve

#: How long a read waits for the write to its collection that is under way.
_GATE_TIMEOUT_S: Final = 10.0
#: And a read by who may hold back the applier, on which the write in turn may wait.
_INSPECT_TIMEOUT_S: Final = 0.3

_IDS_ONLY: Final = Get(include=())


class IsolatedEngine:
    """`Engine` and `Tending` of `cluster.chroma.interface`; all of it is safe from any thread."""

    def __init__(
        self,
        directory: Path,
        local: Iterable[tuple[str, bytes]] = (),
        *,
        on_change: Callable[[], None] = lambda: None,
        readers: int = 8,
        limits: Limits | None = None,
    ) -> None:
        """Start the child and wait until its Chroma is open.

        At most `readers` reads are under way at a time; more of them wait. `on_change` is told, from
        any thread, that `condition` has changed.

        Raises:
            Fault: Chroma cannot be opened.
        """
        self._directory = directory
        self._gate = Gate()
        # The id map as of the last call that was answered: the store's may be one step behind it, and a
        # process that is started again must find what the one before it made.
        self._local = dict(local)
        self._local_lock = threading.Lock()
        self._keeper = Keeper(Kept("engine", readers, self._opening), limits or Limits(), on_change)
        self._keeper.start(wait=True)

    def _opening(self) -> tuple[str, tuple[Any, ...]]:
        with self._local_lock:
            return "open", (str(self._directory), list(self._local.items()))

    @property
    def pid(self) -> int | None:
        """Process id of the child, None while there is none."""
        return self._keeper.pid

    def condition(self) -> Condition:
        return self._keeper.condition()

    def restart(self, why: str) -> None:
        self._keeper.restart(why)

    def close(self) -> None:
        """Let the calls under way finish, then end the child; a second close does nothing."""
        self._keeper.close()

    def apply(self, call: Call) -> tuple[Change, ...]:
        command = call.command
        changed = command.collection_id if isinstance(command, WriteRecords | DeleteRecords) else None
        with self._gate.writing(changed):
            changes = self._keeper.write("apply", *pack_call(call), settle=self._remember)
        return tuple(Change(key, value) for key, value in changes)

    def hide(self, collection_id: str | None) -> None:
        """Let nobody read this collection until it is told otherwise: a write to it is half done."""
        self._gate.hide(collection_id)

    def _remember(self, changes: Iterable[tuple[str, bytes | None]]) -> None:
        with self._local_lock:
            for key, value in changes:
                if value is None:
                    self._local.pop(key, None)
                else:
                    self._local[key] = value

    def resolve(self, work: Resolve) -> tuple[str, ...]:
        return tuple(self._keeper.write("resolve", *pack_resolve(work)))

    def reopen(self) -> None:
        self._keeper.restart("a call failed in it")

    def get(self, collection_id: str, wanted: Get = EVERY_RECORD) -> Records:
        with self._gate.reading(collection_id, _GATE_TIMEOUT_S):
            return unpack_records(self._keeper.read("get", collection_id, pack_get(wanted)))

    def query(self, collection_id: str, wanted: Query) -> Neighbours:
        with self._gate.reading(collection_id, _GATE_TIMEOUT_S):
            return unpack_neighbours(self._keeper.read("query", collection_id, pack_query(wanted)))

    def ids(self, collection_id: str) -> list[str]:
        """As `cluster.chroma.interface.Inspected.ids`."""
        with self._gate.reading(collection_id, _INSPECT_TIMEOUT_S):
            return unpack_records(self._keeper.read("get", collection_id, pack_get(_IDS_ONLY))).ids

    def digests(self, collection_id: str, ids: Sequence[str]) -> list[RecordDigest]:
        """As `cluster.chroma.interface.Inspected.digests`."""
        with self._gate.reading(collection_id, _INSPECT_TIMEOUT_S):
            return [RecordDigest(*one) for one in self._keeper.read("digests", collection_id, list(ids))]

    def found_by_vector(self, collection_id: str, ids: Sequence[str], n_results: int) -> tuple[int, int]:
        """As `cluster.chroma.interface.Inspected.found_by_vector`."""
        with self._gate.reading(collection_id, _INSPECT_TIMEOUT_S):
            asked, found = self._keeper.read("found_by_vector", collection_id, list(ids), n_results)
        return asked, found

    def strangers(self, databases: Sequence[tuple[str, str]]) -> list[str]:
        """As `cluster.chroma.interface.Inspected.strangers`."""
        return self._keeper.read("strangers", [list(one) for one in databases])

    def count(self, collection_id: str) -> int:
        with self._gate.reading(collection_id, _GATE_TIMEOUT_S):
            return self._keeper.read("count", collection_id)

    def collection(self, collection_id: str) -> dict[str, Any]:
        return self._keeper.read("collection", collection_id)

    def collections(self, tenant: str, database: str) -> list[dict[str, Any]]:
        return self._keeper.read("collections", tenant, database)

    def collection_ids(self) -> list[str]:
        return self._keeper.read("collection_ids")

    def documents(self, leave_out: Sequence[str] = ()) -> int:
        return self._keeper.read("documents", list(leave_out))
