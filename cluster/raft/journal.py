"""The durable log of one node: entries, term, vote and commit index, checked when opened, synced by `flush`.

What `append`, `truncate_from`, `set_term` and `compact` change is visible at once to the raft thread and
durable after the next `flush`, which writes everything since the last one in a single transaction.
Recent entries stay in a cache bounded by bytes; older ones are read back and verified.
`read` may be called from any thread, for indices at or below the commit index.
"""

from __future__ import annotations

import bisect
import threading
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

import msgpack

from cluster.errors import Fault
from cluster.failpoint import failpoint
from cluster.raft.configuration import (
    decode_configuration,
    encode_configuration,
    founding,
    is_configuration,
)
from cluster.raft.interface import Configuration, Entry, Member
from cluster.raft.meta import Known, Meta, Standing, check_members, damaged_advice
from cluster.raft.storage import Batch, Row, SqliteStorage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from cluster.raft.storage import Storage

DEFAULT_CACHE_BYTES = 64 * 1024 * 1024
COMPACTION_STEP_BYTES = 8 * 1024 * 1024
COMPACTION_STEP_ENTRIES = 2000
ROW_BYTES = 64
"""Added to each payload where bytes are counted, so that many tiny entries are bounded too."""


def checksum(index: int, term: int, payload: bytes) -> int:
    """CRC-32 over index, term and payload: computed once by the leader, checked on the wire and on disk."""
    return zlib.crc32(payload, zlib.crc32(b"%d:%d:" % (index, term)))


class Journal:
    """See the module. Indices start at 1; `base_index` is the last index that has been compacted away."""

    def __init__(
        self,
        storage: Storage,
        cluster_id: str,
        node_id: str,
        *,
        members: Iterable[str] = (),
        incarnation: str = "",
        standing: Standing = Standing.NEW,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        """`members` are the ids of the cluster as configured (none: not compared). A journal that is created
        here is founded with them; with none it belongs to nobody until it is told who its members are.
        `incarnation` names the life of such a journal, `standing` is its first.
        """
        self._storage = storage
        self._cache_bytes = cache_bytes
        self._lock = threading.Lock()
        self._cache: dict[int, Row] = {}  # guarded by _lock; always the newest entries, without a gap
        self._cache_first = 1
        self._cache_held = 0
        self._runs: list[
            tuple[int, int]
        ] = []  # (first index, term) of each run of equal terms, base included
        self._configurations: list[tuple[int, Configuration]] = []
        """That of the base, and each one in the log after it, with its index."""
        self._pending_first: int | None = None  # rows from here on are not written yet
        self._delete_from: int | None = None
        self._delete_to: int | None = None
        self._dirty = False
        self.bytes_held = 0
        self.known_is_saved = True
        self._configured = tuple(sorted(members))
        self._new = Meta(
            cluster_id,
            node_id,
            configuration=encode_configuration(founding(self._configured)),
            incarnation=incarnation,
            standing=standing,
        )
        self._load()

    @classmethod
    def open(
        cls,
        path: Path,
        cluster_id: str,
        node_id: str,
        *,
        members: Iterable[str] = (),
        incarnation: str = "",
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> Journal:
        """Open or create the journal file, verifying every entry.

        Raises:
            Fault: the file is damaged, or belongs to another node or cluster, or was founded with other
                members and never was told of a change.
        """
        storage = SqliteStorage(path)
        try:
            return cls(
                storage,
                cluster_id,
                node_id,
                members=members,
                incarnation=incarnation,
                cache_bytes=cache_bytes,
            )
        except BaseException:
            storage.close()
            raise

    # ------------------------------------------------------------------ opening

    def _load(self) -> None:
        data = self._storage.load_meta()
        if data is None:
            if next(iter(self._storage.load_rows()), None) is not None:
                raise self._damaged("it has entries but no meta record")
            self._meta = self._new
            self._dirty = True  # its incarnation must be durable before anybody hears of it
        else:
            try:
                self._meta, self._dirty = Meta.decode(data, self._new)
            except (ValueError, TypeError, IndexError, msgpack.UnpackException) as error:
                raise self._damaged(str(error)) from error
            self._check_owner()
        meta = self._meta
        self._runs = [(meta.base_index, meta.base_term)]
        self._configurations = [(0, decode_configuration(meta.configuration))]
        self._cache_first = meta.base_index + 1
        expected = meta.base_index + 1
        for row in self._storage.load_rows():
            if row.index != expected:
                raise self._damaged(f"the entry at index {expected} is missing (the next one is {row.index})")
            if row.crc != checksum(row.index, row.term, row.payload):
                raise self._damaged(f"the checksum of the entry at index {row.index} does not match")
            try:
                self._remember(row)
            except ValueError as error:
                raise self._damaged(f"the entry at index {row.index} is {error}") from error
            expected += 1
        if expected - 1 != meta.last_index or self._runs[-1][1] != meta.last_term:
            raise self._damaged(
                f"it ends at index {expected - 1} (term {self._runs[-1][1]}), but its meta record says "
                f"{meta.last_index} (term {meta.last_term})"
            )
        self.durable_index = meta.last_index
        self._evict()
        check_members(self.configuration, self._configured, meta.node_id, self._storage.name)

    def _check_owner(self) -> None:
        meta, new = self._meta, self._new
        if (meta.cluster_id, meta.node_id) != (new.cluster_id, new.node_id):
            raise Fault(
                f"The journal {self._storage.name} belongs to node {meta.node_id} of cluster "
                f"{meta.cluster_id}, but this is node {new.node_id} of {new.cluster_id}. Nothing was "
                "changed. Start the node with its own data directory."
            )

    def _damaged(self, what: str) -> Fault:
        return Fault(
            f"The journal {self._storage.name} is damaged: {what}. Nothing was served from it, nothing was "
            f"changed. {damaged_advice()}"
        )

    # ------------------------------------------------------------------ looking

    @property
    def name(self) -> str:
        return self._storage.name

    @property
    def term(self) -> int:
        return self._meta.term

    @property
    def vote(self) -> str | None:
        return self._meta.vote

    @property
    def commit_index(self) -> int:
        return self._meta.commit_index

    @property
    def base_index(self) -> int:
        return self._meta.base_index

    @property
    def first_index(self) -> int:
        return self._meta.base_index + 1

    @property
    def last_index(self) -> int:
        return self._meta.last_index

    @property
    def last_term(self) -> int:
        return self._meta.last_term

    @property
    def dirty(self) -> bool:
        """Something changed since the last flush that must be durable before it is promised."""
        return self._dirty

    def term_at(self, index: int) -> int:
        """The term of the entry at `index`; base and later only.

        Raises:
            LookupError: the index is compacted away or beyond the end.
        """
        if not self.base_index <= index <= self.last_index:
            raise LookupError(f"index {index} is not in {self.base_index}..{self.last_index}")
        return self._runs[bisect.bisect_right(self._runs, index, key=_run_first) - 1][1]

    def term_of(self, index: int) -> int:
        """`term_at`, for other threads."""
        with self._lock:
            return self.term_at(index)

    def first_of_term_at(self, index: int) -> int:
        """The first index of the run of equal terms that contains `index`, as far as the log is held."""
        return self._runs[bisect.bisect_right(self._runs, index, key=_run_first) - 1][0]

    def last_of_term(self, term: int) -> int | None:
        """The last index with `term`, or None when no held entry has it."""
        at = bisect.bisect_right(self._runs, term, key=_run_term) - 1
        if at < 0 or self._runs[at][1] != term:
            return None
        return self._runs[at + 1][0] - 1 if at + 1 < len(self._runs) else self.last_index

    def read(self, start: int, last: int, max_bytes: int) -> list[Row]:
        """Entries start..last, at least one where there is one, about max_bytes; any thread.

        Raises:
            LookupError: `start` has been compacted away.
            Fault: a stored entry does not match its checksum.
        """
        rows: list[Row] = []
        held = 0
        while start <= last and (not rows or held < max_bytes):
            with self._lock:
                if start <= self.base_index:
                    raise LookupError(f"The entry at index {start} has been compacted away.")
                stop = min(last, self.last_index)
                while start <= stop and start >= self._cache_first and (not rows or held < max_bytes):
                    row = self._cache[start]
                    rows.append(row)
                    held += len(row.payload) + ROW_BYTES
                    start += 1
                cache_first = self._cache_first
            if start > stop or start >= cache_first or (rows and held >= max_bytes):
                break
            stored = self._storage.read(start, min(stop, cache_first - 1), max_bytes - held)
            if not stored:
                if start <= self.base_index:
                    continue  # compacted between the two looks: the LookupError above says so
                raise self._damaged(f"the entry at index {start} is missing")
            for row in stored:
                if row.index != start or row.crc != checksum(row.index, row.term, row.payload):
                    raise self._damaged(f"the entry at index {start} is missing or fails its checksum")
                rows.append(row)
                held += len(row.payload) + ROW_BYTES
                start += 1
        return rows

    def entries(self, start: int, last: int, max_bytes: int) -> list[Entry]:
        """Like `read`, as the values of `interface.Raft`: raft's own entries are empty."""
        return [
            Entry(row.index, row.term, b"" if is_configuration(row.payload) else row.payload)
            for row in self.read(start, last, max_bytes)
        ]

    # ------------------------------------------------------------------ members

    @property
    def configuration(self) -> Configuration:
        """The one in force: the last in the log, committed or not."""
        return self._configurations[-1][1]

    @property
    def configuration_index(self) -> int:
        """Where it stands in the log; 0: at or before the base."""
        return self._configurations[-1][0]

    @property
    def former_configuration(self) -> Configuration | None:
        """The one before it, while it is not known to be committed; else None."""
        if self.configuration_index <= self.commit_index:
            return None
        return self._configurations[-2][1]

    @property
    def participants(self) -> tuple[Member, ...]:
        """The members, and those whom a change leaves out that is not committed yet: it needs them."""
        now, former = self.configuration, self.former_configuration
        gone = () if former is None else (it for it in former.members if now.member(it.id) is None)
        return (*now.members, *gone)

    @property
    def committed_configuration(self) -> Configuration:
        """The last that is known to be committed."""
        return self._configuration_at(self.commit_index)

    def _configuration_at(self, index: int) -> Configuration:
        return next(it for at, it in reversed(self._configurations) if at <= max(index, self.base_index))

    def configuration_at(self, index: int) -> bytes:
        """The configuration in force at `index` (base or later), encoded: what a snapshot there must say."""
        return encode_configuration(self._configuration_at(index))

    def configuration_of(self, index: int) -> bytes:
        """`configuration_at`, for other threads."""
        with self._lock:
            return self.configuration_at(index)

    # ------------------------------------------------------------------ changing (raft thread only)

    def set_term(self, term: int, vote: str | None) -> None:
        if (term, vote) != (self._meta.term, self._meta.vote):
            self._meta = replace(self._meta, term=term, vote=vote)
            self._dirty = True

    @property
    def standing(self) -> Standing:
        return self._meta.standing

    @property
    def incarnation(self) -> str:
        return self._meta.incarnation

    @property
    def known(self) -> Mapping[str, Known]:
        """What this node has seen the others promise, by peer."""
        return self._meta.known

    def set_standing(self, standing: Standing) -> None:
        self._meta = replace(self._meta, standing=standing)
        self._dirty = True

    def set_known(self, known: Mapping[str, Known]) -> None:
        """Note what peers promised; it goes to disk with the next flush that has something to promise."""
        self._meta = replace(self._meta, known=dict(known))
        self.known_is_saved = False

    def save_known(self) -> None:
        """Let the next flush write what peers promised, if none has done so meanwhile."""
        self._dirty = self._dirty or not self.known_is_saved

    def set_commit(self, index: int) -> None:
        """Note the commit index; it goes to disk with the next flush that has something to promise."""
        if index > self._meta.commit_index:
            self._meta = replace(self._meta, commit_index=index)

    def append(self, term: int, payload: bytes, crc: int | None = None) -> Row:
        """Add one entry at the end; durable after the next flush. `crc` where it is known already.

        Raises:
            Fault: it is a configuration that this version cannot read; nothing was changed.
        """
        index = self.last_index + 1
        row = Row(index, term, checksum(index, term, payload) if crc is None else crc, payload)
        with self._lock:
            try:
                self._remember(row)
            except ValueError as error:
                raise Fault(
                    f"The entry at index {index} is {error}. It was not stored. Upgrade this node to the "
                    "version of its leader and start it again."
                ) from error
            self._meta = replace(self._meta, last_index=index, last_term=term)
        if self._pending_first is None:
            self._pending_first = index
        self._dirty = True
        return row

    def truncate_from(self, index: int) -> None:
        """Drop the entry at `index` and all after it, which must all be above the commit index.

        Raises:
            Fault: that would drop a committed or compacted entry; nothing was changed.
        """
        if index <= max(self.commit_index, self.base_index):
            raise Fault(
                f"The journal {self._storage.name} was asked to drop entries from index {index} on, but "
                f"everything up to {max(self.commit_index, self.base_index)} is committed. Nothing was "
                "dropped. This node's log contradicts its leader's: stop it and compare the nodes."
            )
        if index > self.last_index:
            return
        with self._lock:
            for at in range(max(index, self._cache_first), self.last_index + 1):
                row = self._cache.pop(at)
                self._cache_held -= len(row.payload)
                self.bytes_held -= len(row.payload)
            if index < self._cache_first:
                stored = self._storage.sizes(index, self._cache_first - index)
                self.bytes_held -= sum(size for _, size in stored)
                self._cache_first = index
            while self._runs[-1][0] >= index and len(self._runs) > 1:
                self._runs.pop()
            while self._configurations[-1][0] >= index:
                self._configurations.pop()
            self._meta = replace(self._meta, last_index=index - 1, last_term=self._runs[-1][1])
        if index <= self.durable_index:
            self._delete_from = index if self._delete_from is None else min(index, self._delete_from)
            self.durable_index = index - 1
        if self._pending_first is not None and index <= self._pending_first:
            self._pending_first = None
        self._dirty = True

    def compact(self, limit: int, budget_bytes: int) -> int:
        """Drop old entries at or below `limit` while more than `budget_bytes` are held; the new base index.

        One call drops a bounded amount, so that a tick stays short; durable with the next flush.
        """
        limit = min(limit, self.commit_index, self.durable_index)
        if self.bytes_held <= budget_bytes or limit <= self.base_index:
            return self.base_index
        dropped = 0
        base = self.base_index
        for index, size in self._storage.sizes(self.first_index, COMPACTION_STEP_ENTRIES):
            over = self.bytes_held - dropped > budget_bytes
            if index > limit or not over or dropped >= COMPACTION_STEP_BYTES:
                break
            dropped += size
            base = index
        if base == self.base_index:
            return base
        base_term = self.term_at(base)
        with self._lock:
            for index in range(self._cache_first, base + 1):
                self._cache_held -= len(self._cache.pop(index).payload)
            self._cache_first = max(self._cache_first, base + 1)
            self.bytes_held -= dropped
            at = bisect.bisect_right(self._runs, base, key=_run_first) - 1
            self._runs[: at + 1] = [(base, base_term)]
            held = [it for it in self._configurations if it[0] > base]
            configuration = self._configuration_at(base)
            self._configurations = [(0, configuration), *held]
            self._meta = replace(
                self._meta,
                base_index=base,
                base_term=base_term,
                configuration=encode_configuration(configuration),
            )
        self._delete_to = base
        self._dirty = True
        return base

    def reset_to(self, index: int, term: int, configuration: bytes = b"") -> bool:
        """Raft's InstallSnapshot: the state of all entries up to `index`, of `term`, is held otherwise.

        A log that holds that very entry keeps it and what follows; any other is discarded as a whole and
        begins after `index`, where `configuration` was in force (b"" of an older snapshot: the last that was
        committed here). Term, vote, incarnation, standing and what peers promised stay. Whether the log
        was discarded; durable with the next flush.

        Raises:
            Fault: that would drop or contradict a committed entry; nothing was changed.
        """
        meta = self._meta
        if index < meta.base_index:
            raise Fault(
                f"The journal {self._storage.name} begins after {meta.base_index}: it does not go on from a "
                f"snapshot of index {index}. Nothing was changed."
            )
        if index <= meta.last_index and self.term_at(index) == term:
            self.set_commit(index)
            self._dirty = True
            return False
        if index <= meta.commit_index:
            raise Fault(
                f"The journal {self._storage.name} has the committed entry {index} in term "
                f"{self.term_at(index)}, the snapshot in term {term}: they contradict each other. Nothing "
                "was changed. Stop this node and compare it with the others."
            )
        held = decode_configuration(configuration) if configuration else self.committed_configuration
        with self._lock:
            self._configurations = [(0, held)]
            self._cache.clear()
            self._cache_first = index + 1
            self._cache_held = self.bytes_held = 0
            self._runs = [(index, term)]
            self._meta = replace(
                meta,
                base_index=index,
                base_term=term,
                last_index=index,
                last_term=term,
                commit_index=index,
                configuration=encode_configuration(held),
            )
        self._note_term(term)
        self._pending_first = None
        self._delete_from, self._delete_to = 0, None
        self.durable_index = index
        self._dirty = True
        return True

    def _note_term(self, term: int) -> None:
        """A log never holds an entry of a later term than its own."""
        if term > self._meta.term:
            self.set_term(term, None)

    def flush(self) -> None:
        """Make everything changed so far durable, in one transaction. This is the fsync point.

        Raises:
            OSError, sqlite3.Error: nothing since the last flush is durable; the journal must not be used on.
        """
        if not self._dirty:
            return
        rows: tuple[Row, ...] = ()
        if self._pending_first is not None:
            rows = tuple(self._cache[at] for at in range(self._pending_first, self.last_index + 1))
        self._meta = replace(self._meta, sequence=self._meta.sequence + 1)
        failpoint("journal.before_write")
        self._storage.write(
            Batch(self._meta.encode(), self._meta.sequence, rows, self._delete_from, self._delete_to)
        )
        failpoint("journal.after_write")
        self._delete_from = self._delete_to = self._pending_first = None
        self._dirty = False
        self.known_is_saved = True
        self.durable_index = self.last_index
        self._evict()

    def close(self) -> None:
        """Close without flushing: what was not flushed was promised to nobody."""
        self._storage.close()

    # ------------------------------------------------------------------ inside

    def _remember(self, row: Row) -> None:
        """Raises ValueError when it is a configuration that cannot be read."""
        if is_configuration(row.payload):
            self._configurations.append((row.index, decode_configuration(row.payload)))
        self._cache[row.index] = row
        self._cache_held += len(row.payload)
        self.bytes_held += len(row.payload)
        if row.term != self._runs[-1][1]:
            self._runs.append((row.index, row.term))
        if self._cache_held > self._cache_bytes * 2 and self._pending_first is None:
            self._evict_locked(row.index - 1)

    def _evict(self) -> None:
        with self._lock:
            self._evict_locked(self.durable_index)

    def _evict_locked(self, limit: int) -> None:
        while self._cache_held > self._cache_bytes and self._cache_first <= limit:
            self._cache_held -= len(self._cache.pop(self._cache_first).payload)
            self._cache_first += 1


def _run_first(run: tuple[int, int]) -> int:
    return run[0]


def _run_term(run: tuple[int, int]) -> int:
    return run[1]
