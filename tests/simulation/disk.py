"""One node's disk: journal rows, state pairs and the engine's records, and how each of them can fail.

What a returned write holds survives everything but the loss of the disk. A crash can be armed for the
next write of a kind: before it, in the middle (torn: the journal's transaction does not count, as SQLite
drops it; the engine's call is done in part), unsynced (written and readable, but a loss of power takes it
away until something syncs it), or after it, before the process learns. A disk can be slow, full, or lost.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cluster.apply.store import Marker
from cluster.errors import Fault
from cluster.raft.meta import Meta, Standing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cluster.raft.storage import Batch, Row
    from cluster.state.catalog import Change


class Crash(BaseException):
    """The process dies here and now. Not an Exception: no handler of the code under test may catch it."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A node's state at one log index; `parts` are fetched one by one, and `halfway` is as `Disk.halfway`."""

    name: str
    index: int
    term: int
    configuration: bytes
    position: int
    parts: tuple[tuple[str, dict[str, Any]], ...]
    halfway: dict[str, tuple[int, int]]
    ahead: int


@dataclass(slots=True)
class Incoming:
    """A snapshot being fetched, as far as it is here. What is not synced is lost with the power."""

    donor: str
    snapshot: Snapshot
    parts: list[tuple[str, dict[str, Any]]] = field(default_factory=list[tuple[str, dict[str, Any]]])

    def lose_half(self) -> None:
        del self.parts[len(self.parts) // 2 :]


class Disk:
    """Everything of one node that survives its process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows: dict[int, Row] = {}
        self.meta_bytes: bytes | None = None
        self._meta: Meta | None = None
        self.pairs: dict[str, bytes] = {}
        self.marker = Marker(0, 0)
        self.collections: dict[str, dict[str, Any]] = {}
        self.halfway: dict[str, tuple[int, int]] = {}
        """Collections of engine calls that began, by how far the log was applied had they been marked too.

        Up to there the content may run ahead of the marker: after a crash the call is repeated, but may
        be planned from fewer entries than the first time (see `cluster.state.machine`).
        """
        self.is_full = False
        self.has_failed = False
        """It refused a write since the process started: a fault of the node is then to be expected."""
        self.is_lost = False
        self.was_wiped = False
        self.snapshots: dict[str, Snapshot] = {}
        """What this node took of itself."""
        self.incoming: Incoming | None = None
        """What it fetches."""
        self.ahead = 0
        """As of `cluster.snapshot.installing`."""
        self.decided = False
        """Whether what is fetched is this node's state from its next start on."""
        self.slowness_s: Callable[[], float] = lambda: 0.0
        self.stall: Callable[[float], None] = lambda seconds: None
        self.on_state_write: Callable[[], None] = lambda: None
        self.crash_point: tuple[str, int] | None = None
        """(name of the point, how many times to pass it first)."""
        self.crash_takes_power: bool | None = None
        """Whether what is written there and not synced goes with that crash; None: by chance."""
        self._synced_log: tuple[dict[int, Row], bytes | None, Meta | None] | None = None
        self._synced_state: tuple[dict[str, bytes], Marker] | None = None
        """What a loss of power would leave of the journal, and of the state; None: all that is there."""

    def wipe(self) -> None:
        """Another disk, with nothing on it, in the place of this one."""
        self.rows, self.meta_bytes, self._meta = {}, None, None
        self.pairs, self.marker = {}, Marker(0, 0)
        self.collections, self.halfway = {}, {}
        self._synced_log = self._synced_state = None
        self.snapshots, self.incoming, self.decided = {}, None, False
        self.ahead = 0
        self.was_wiped = True

    @property
    def has_vote(self) -> bool:
        """Its node knows all that it ever promised."""
        return not self.is_lost and self.meta is not None and self.meta.standing is Standing.VOTER

    @property
    def is_excused(self) -> bool:
        """What it held counts as held: it was lost, and has not been filled again."""
        return self.is_lost or (self.was_wiped and not self.has_vote)

    def pass_point(self, name: str) -> bool:
        """Whether the armed crash is here."""
        if self.crash_point is None or self.crash_point[0] != name:
            return False
        self.crash_point = (name, self.crash_point[1] - 1)
        return self.crash_point[1] < 0

    def crash_at(self, name: str) -> None:
        if self.pass_point(name):
            raise Crash(name)

    def begin_write(self, kind: str) -> None:
        self.crash_at(f"{kind}-before")
        self.stall(self.slowness_s())
        if self.is_full:
            self.has_failed = True
            raise sqlite3.OperationalError("database or disk is full")
        self.crash_at(f"{kind}-torn")

    def end_write(self, kind: str) -> None:
        self.crash_at(f"{kind}-after")

    # ------------------------------------------------------------------ what a judge looks at: what is synced

    @property
    def meta(self) -> Meta | None:
        return self._meta if self._synced_log is None else self._synced_log[2]

    @property
    def durable_marker(self) -> Marker:
        return self.marker if self._synced_state is None else self._synced_state[1]

    @property
    def durable_rows(self) -> dict[int, Row]:
        return self.rows if self._synced_log is None else self._synced_log[0]

    @property
    def last_index(self) -> int:
        return 0 if self.meta is None else self.meta.last_index

    @property
    def last_term(self) -> int:
        return 0 if self.meta is None else self.meta.last_term

    def holds(self, index: int, term: int) -> bool:
        """Whether the entry is here durably."""
        if self.meta is not None and index <= self.meta.base_index:
            return True
        row = self.durable_rows.get(index)
        return row is not None and row.term == term

    # ------------------------------------------------------------------ what is written and not synced

    def put_log(self, rows: dict[int, Row], meta: bytes) -> None:
        """The journal as a write left it."""
        self.rows, self.meta_bytes, self._meta = rows, meta, Meta.decode(meta)[0]

    def log_unsynced(self) -> None:
        """What is written to the journal from here on is lost with the power, until `log_synced`."""
        if self._synced_log is None:
            self._synced_log = (dict(self.rows), self.meta_bytes, self._meta)

    def log_synced(self) -> None:
        self._synced_log = None

    def state_unsynced(self) -> None:
        if self._synced_state is None:
            self._synced_state = (dict(self.pairs), self.marker)

    def state_synced(self) -> None:
        self._synced_state = None

    def lose_power(self) -> None:
        """What was not synced is gone."""
        if self._synced_log is not None:
            self.rows, self.meta_bytes, self._meta = self._synced_log
        if self._synced_state is not None:
            self.pairs, self.marker = self._synced_state
        self._synced_log = self._synced_state = None
        if self.incoming is not None and not self.decided:
            self.incoming.lose_half()


class SimulatedStorage:
    """`cluster.raft.storage.Storage` on a simulated disk: a batch is durable when `write` returns."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.name = f"{disk.name}/raft.sqlite"
        self.settle()

    def settle(self) -> None:
        """As at the open of the real one: what is readable is durable from here on."""
        self.disk.log_synced()

    def load_meta(self) -> bytes | None:
        return self.disk.meta_bytes

    def load_rows(self) -> Iterator[Row]:
        yield from (self.disk.rows[index] for index in sorted(self.disk.rows))

    def write(self, batch: Batch) -> None:
        disk = self.disk
        disk.begin_write("journal")
        dies = disk.pass_point("journal-unsynced")
        if dies:
            disk.log_unsynced()
        self.put(batch)
        if dies:
            raise Crash("journal-unsynced")
        self.sync()
        disk.end_write("journal")

    def sync(self) -> None:
        self.disk.log_synced()

    def put(self, batch: Batch) -> None:
        disk = self.disk
        rows = disk.rows
        if batch.delete_from is not None:
            for index in [index for index in rows if index >= batch.delete_from]:
                del rows[index]
        if batch.delete_to is not None:
            for index in [index for index in rows if index <= batch.delete_to]:
                del rows[index]
        for row in batch.rows:
            if row.index in rows:
                raise sqlite3.IntegrityError(f"UNIQUE constraint failed: entries.idx ({row.index})")
            rows[row.index] = row
        disk.put_log(rows, batch.meta)

    def read(self, start: int, last: int, max_bytes: int) -> list[Row]:
        found: list[Row] = []
        held = 0
        for index in range(start, last + 1):
            row = self.disk.rows.get(index)
            if row is None:
                break
            found.append(row)
            held += len(row.payload)
            if held >= max_bytes:
                break
        return found

    def sizes(self, start: int, count: int) -> list[tuple[int, int]]:
        indices = sorted(index for index in self.disk.rows if index >= start)[:count]
        return [(index, len(self.disk.rows[index].payload)) for index in indices]

    def close(self) -> None:
        return None


class SimulatedStore:
    """`cluster.apply.store.Store` on a simulated disk."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.settle()

    def settle(self) -> None:
        """As at the open of the real one."""
        self._disk.state_synced()

    def marker(self) -> Marker:
        return self._disk.marker

    def items(self, prefix: str = "") -> list[tuple[str, bytes]]:
        return sorted(pair for pair in self._disk.pairs.items() if pair[0].startswith(prefix))

    def write(self, changes: Iterable[Change], index: int, position: int = 0) -> None:
        disk = self._disk
        disk.on_state_write()
        try:
            disk.begin_write("store")
        except sqlite3.Error as error:
            raise Fault(
                f"This node cannot write its state file {disk.name}/state.sqlite: {error}."
            ) from error
        dies = disk.pass_point("store-unsynced")
        if dies:
            disk.state_unsynced()
        for change in changes:
            if change.value is None:
                disk.pairs.pop(change.key, None)
            else:
                disk.pairs[change.key] = change.value
        disk.marker = Marker(index, position)
        if dies:
            raise Crash("store-unsynced")
        disk.state_synced()
        if position:
            disk.crash_at("amid-an-entry")
        disk.end_write("store")
