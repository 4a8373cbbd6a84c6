"""Where the journal's bytes live: one batch a tick, durable when `write` returns, or not written at all.

`Storage` is the seam the simulation replaces; `SqliteStorage` is the real one: SQLite in WAL mode with
synchronous=FULL, so that a committed transaction has been fsynced. SQLite drops a damaged tail of its
WAL without a word, because it cannot tell damage from the torn write of a power loss. Beside the database
therefore lies a mark, `<file>-mark`: the number of the last transaction whose fsync has returned. A
database that has fewer transactions than the mark says has lost some, and is refused.

What an earlier process wrote and did not live to sync is readable all the same. It is made durable at open
(see `cluster.durable`), before anybody can promise anything that rests on it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
import threading
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cluster.durable import settle, sync_sqlite
from cluster.errors import Fault
from cluster.failpoint import failpoint
from cluster.raft.meta import damaged_advice

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries(
    idx INTEGER PRIMARY KEY, term INTEGER NOT NULL, crc INTEGER NOT NULL, payload BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS meta(
    id INTEGER PRIMARY KEY CHECK(id = 1), sequence INTEGER NOT NULL, body BLOB NOT NULL);
"""
_PAGE_BYTES = 16384
"""Large entries are written about twice as fast as with SQLite's 4096; small ones as fast."""
_CHECKPOINT_BYTES = 16 * 1024 * 1024
_MARK = struct.Struct(">QI")
_MARK_SLOT_BYTES = 512


@dataclass(frozen=True, slots=True)
class Row:
    """One entry as it is stored; `crc` covers index, term and payload (see `journal.checksum`)."""

    index: int
    term: int
    crc: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """All that one flush changes, in this order: cut the tail, cut the head, add rows, replace the meta."""

    meta: bytes
    sequence: int
    rows: tuple[Row, ...] = ()
    delete_from: int | None = None
    delete_to: int | None = None


class Storage(Protocol):
    """Durable rows and one meta record. `write` is atomic and durable; reads see only what was written."""

    name: str

    def load_meta(self) -> bytes | None:
        """The last meta record, or None for a journal that never was written to."""
        ...

    def load_rows(self) -> Iterator[Row]:
        """Every stored row in index order."""
        ...

    def write(self, batch: Batch) -> None:
        """Make `batch` durable; on any error nothing of it counts. Raises OSError or sqlite3.Error."""
        ...

    def read(self, start: int, last: int, max_bytes: int) -> list[Row]:
        """Rows start..last, at least one where there is one, about max_bytes. Callable from any thread."""
        ...

    def sizes(self, start: int, count: int) -> list[tuple[int, int]]:
        """(index, payload bytes) of up to `count` rows from `start` on."""
        ...

    def close(self) -> None: ...


class SqliteStorage:
    """The journal's file. One writer thread; `read` may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._read_lock = threading.Lock()
        self._is_closed = False  # guarded by _read_lock
        is_new = not path.exists() or path.stat().st_size == 0
        self._mark = _Mark(f"{self.name}-mark", journal_is_new=is_new)
        if is_new and self._mark.sequence:
            self._mark.close()
            raise _damaged(
                self.name,
                f"it is missing, but transaction {self._mark.sequence} had been written durably to it",
            )
        try:
            sync_sqlite(path)
        except OSError as error:
            self._mark.close()
            raise _unsettled(self.name, error) from error
        self._writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._writer.execute(f"PRAGMA page_size={_PAGE_BYTES}")
            self._writer.execute("PRAGMA journal_mode=WAL")
            self._writer.execute("PRAGMA synchronous=FULL")
            self._writer.execute("PRAGMA cell_size_check=ON")
            self._writer.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_BYTES // _PAGE_BYTES}")
            self._writer.execute("PRAGMA journal_size_limit=67108864")
            if is_new:
                self._writer.executescript(_SCHEMA)
            damage = [str(row[0]) for row in self._writer.execute("PRAGMA quick_check(3)")]
            if damage != ["ok"]:
                raise _damaged(self.name, "; ".join(damage))
            self._check_mark()
            self._settle(path)
            self._reader = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._reader.execute("PRAGMA query_only=ON")
        except sqlite3.DatabaseError as error:
            self._abandon()
            if isinstance(error, sqlite3.OperationalError) and "no such" not in str(error):
                raise
            raise _damaged(self.name, str(error)) from error
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        self._writer.close()
        self._mark.close()

    def _check_mark(self) -> None:
        row = self._writer.execute("SELECT sequence FROM meta").fetchone()
        held = int(row[0]) if row else 0
        if held < self._mark.sequence:
            raise _damaged(
                self.name,
                f"it ends at transaction {held}, but transaction {self._mark.sequence} had been written "
                "durably: its last writes are missing",
            )

    def _settle(self, path: Path) -> None:
        """From here on all that is readable is durable, also what no fsync had returned for."""
        try:
            settle(self._writer)
            _fsync_directory(str(path.parent))
        except OSError as error:
            raise _unsettled(self.name, error) from error

    def load_meta(self) -> bytes | None:
        try:
            row = self._writer.execute("SELECT body FROM meta").fetchone()
        except sqlite3.DatabaseError as error:
            raise _damaged(self.name, str(error)) from error
        return bytes(row[0]) if row else None

    def load_rows(self) -> Iterator[Row]:
        try:
            for row in self._writer.execute("SELECT idx, term, crc, payload FROM entries ORDER BY idx"):
                yield _row(self.name, row)
        except sqlite3.DatabaseError as error:
            raise _damaged(self.name, str(error)) from error

    def write(self, batch: Batch) -> None:
        execute = self._writer.execute
        execute("BEGIN IMMEDIATE")
        try:
            if batch.delete_from is not None:
                execute("DELETE FROM entries WHERE idx >= ?", (batch.delete_from,))
            if batch.delete_to is not None:
                execute("DELETE FROM entries WHERE idx <= ?", (batch.delete_to,))
            for row in batch.rows:
                execute("INSERT INTO entries VALUES(?,?,?,?)", (row.index, row.term, row.crc, row.payload))
            execute("INSERT OR REPLACE INTO meta VALUES(1,?,?)", (batch.sequence, batch.meta))
            failpoint("journal.before_fsync")
            execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                execute("ROLLBACK")
            raise
        failpoint("journal.after_fsync")
        self._mark.write(batch.sequence)

    def read(self, start: int, last: int, max_bytes: int) -> list[Row]:
        rows: list[Row] = []
        held = 0
        with self._read_lock:
            if self._is_closed:
                raise Fault(f"The journal {self.name} is closed; nothing can be read from it any more.")
            try:
                found = self._reader.execute(
                    "SELECT idx, term, crc, payload FROM entries WHERE idx BETWEEN ? AND ? ORDER BY idx",
                    (start, last),
                )
                for values in found:
                    row = _row(self.name, values)
                    rows.append(row)
                    held += len(row.payload)
                    if held >= max_bytes:
                        break
                found.close()
            except sqlite3.DatabaseError as error:
                raise _damaged(self.name, str(error)) from error
        return rows

    def sizes(self, start: int, count: int) -> list[tuple[int, int]]:
        with self._read_lock:
            found = self._reader.execute(
                "SELECT idx, LENGTH(payload) FROM entries WHERE idx >= ? ORDER BY idx LIMIT ?", (start, count)
            )
            return [(int(index), int(size)) for index, size in found]

    def close(self) -> None:
        with self._read_lock:
            self._is_closed = True
            self._reader.close()
        self._writer.close()
        self._mark.close()


class _Mark:
    """The number of the last durable transaction, in two slots written in turn, without an fsync of its own.

    It is written after the transaction's fsync, so it never runs ahead of the database; after a power loss
    it may be older, which only makes the check weaker.
    """

    def __init__(self, name: str, *, journal_is_new: bool) -> None:
        create = journal_is_new and not os.path.exists(name)
        flags = os.O_RDWR | (os.O_CREAT if create else 0)
        try:
            self._fd = os.open(name, flags, 0o600)
        except FileNotFoundError:
            raise Fault(
                f"The journal's mark {name} is missing, so it cannot be known whether the journal is whole. "
                f"Nothing was changed. {damaged_advice()}"
            ) from None
        if create:
            # Before the journal itself is made: a journal without a mark has surely lost it.
            os.pwrite(self._fd, bytes(_MARK_SLOT_BYTES * 2), 0)
            os.fsync(self._fd)
            _fsync_directory(os.path.dirname(os.path.abspath(name)))
        self.sequence = max(self._read(0), self._read(1))

    def _read(self, slot: int) -> int:
        data = os.pread(self._fd, _MARK.size, slot * _MARK_SLOT_BYTES)
        if len(data) < _MARK.size:
            return 0
        sequence, crc = _MARK.unpack(data)
        return int(sequence) if zlib.crc32(data[:8]) == crc else 0

    def write(self, sequence: int) -> None:
        body = struct.pack(">Q", sequence)
        data = body + struct.pack(">I", zlib.crc32(body))
        os.pwrite(self._fd, data, sequence % 2 * _MARK_SLOT_BYTES)
        self.sequence = sequence

    def close(self) -> None:
        os.close(self._fd)


def _row(name: str, values: tuple[object, ...]) -> Row:
    index, term, crc, payload = values
    if not (isinstance(index, int) and isinstance(term, int) and isinstance(crc, int)):
        raise _damaged(name, f"the entry at index {index!r} has a field of the wrong type")
    if not isinstance(payload, bytes):
        raise _damaged(name, f"the payload of the entry at index {index} is not a blob")
    return Row(index, term, crc, payload)


def _damaged(name: str, what: str) -> Fault:
    return Fault(
        f"The journal {name} is damaged: {what}. Nothing was served from it and nothing was changed. "
        f"{damaged_advice()}"
    )


def _unsettled(name: str, error: OSError) -> Fault:
    return Fault(
        f"What the journal {name} holds could not be made durable ({error}), so nothing may be promised from "
        "it. Nothing was changed. Look after the disk, or end the other process that has the file open, and "
        "start the node again."
    )


def _fsync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
