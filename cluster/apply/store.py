"""The durable state of one node beside Chroma: key-value pairs and how far the log is applied.

One SQLite file in WAL mode with `synchronous=FULL`: a transaction that returned survives kill -9 and
power loss. The marker and the changes of a step are one transaction, so the pairs are always exactly
the state at the marker.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cluster.durable import settle, sync_sqlite
from cluster.errors import FILLED_BY_OTHERS, Fault
from cluster.failpoint import failpoint

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cluster.state.catalog import Change

#: Layout of the file; a file with another number was written by another version of the program.
_LAYOUT: Final = 1


@dataclass(frozen=True, slots=True)
class Marker:
    """Every entry up to `index` is applied, and `position` proposals of the next one."""

    index: int
    position: int


class Store:
    """Pairs and marker of one node; thread-safe, one writer at a time."""

    def __init__(self, path: Path) -> None:
        """Open or create the file and check that it is whole.

        Raises:
            Fault: it cannot be opened or written, is damaged, or of another version.
        """
        self._path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # What an earlier process wrote and did not live to sync must not count before it is durable.
            sync_sqlite(path)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._prepare()
        except (sqlite3.Error, OSError) as error:
            raise self._fault("open", error) from None

    def _prepare(self) -> None:
        db = self._db
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA busy_timeout=5000")
        [(verdict,), *_] = db.execute("PRAGMA quick_check(1)").fetchall()
        if verdict != "ok":
            raise sqlite3.DatabaseError(f"quick_check says: {verdict}")
        settle(db)
        [(layout,)] = db.execute("PRAGMA user_version").fetchall()
        if layout not in (0, _LAYOUT):
            raise sqlite3.DatabaseError(
                f"layout {layout} is unknown, this program reads {_LAYOUT}: written by a newer version?"
            )
        # Also proves that the file can be written: better now than at the first entry.
        db.execute("BEGIN IMMEDIATE")
        db.execute(
            "CREATE TABLE IF NOT EXISTS pair (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
        )
        db.execute(
            "CREATE TABLE IF NOT EXISTS marker "
            "(id INTEGER PRIMARY KEY CHECK (id = 1), position INTEGER NOT NULL, log_index INTEGER NOT NULL)"
        )
        db.execute("INSERT OR IGNORE INTO marker (id, position, log_index) VALUES (1, 0, 0)")
        db.execute(f"PRAGMA user_version={_LAYOUT}")
        db.execute("COMMIT")

    def marker(self) -> Marker:
        """How far the log is applied; (0, 0) on a new node."""
        with self._lock:
            try:
                [(index, position)] = self._db.execute("SELECT log_index, position FROM marker").fetchall()
            except sqlite3.Error as error:
                raise self._fault("read", error) from None
        return Marker(index, position)

    def items(self, prefix: str = "", *, but: str | None = None) -> list[tuple[str, bytes]]:
        """All pairs whose key begins with `prefix`, and not with `but`, ordered by key."""
        with self._lock:
            try:
                rows: list[tuple[str, bytes]] = self._db.execute(
                    "SELECT key, value FROM pair WHERE substr(key, 1, ?) = ? ORDER BY key",
                    (len(prefix), prefix),
                ).fetchall()
            except sqlite3.Error as error:
                raise self._fault("read", error) from None
        return rows if but is None else [row for row in rows if not row[0].startswith(but)]

    def write(self, changes: Iterable[Change], index: int, position: int = 0) -> None:
        """Apply the changes and move the marker, in one durable transaction.

        Raises:
            Fault: nothing of it was written; disk full, read-only or broken.
        """
        with self._lock:
            db = self._db
            try:
                db.execute("BEGIN IMMEDIATE")
                for change in changes:
                    if change.value is None:
                        db.execute("DELETE FROM pair WHERE key = ?", (change.key,))
                    else:
                        db.execute(
                            "INSERT INTO pair (key, value) VALUES (?, ?) "
                            "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                            (change.key, change.value),
                        )
                db.execute("UPDATE marker SET log_index = ?, position = ?", (index, position))
                failpoint("store.before_commit")
                db.execute("COMMIT")
                failpoint("store.after_commit")
            except (sqlite3.Error, OSError) as error:
                with contextlib.suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
                raise self._fault("write", error) from None

    def copy_to(self, path: Path) -> None:
        """Write all of it to a new file, complete without a log beside it; not synced.

        Raises:
            Fault: it cannot be read, or the copy cannot be written; what there is of the copy is of no use.
        """
        with self._lock:
            try:
                with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as copy:
                    self._db.backup(copy)
                    copy.execute("PRAGMA journal_mode=DELETE")
            except (sqlite3.Error, OSError) as error:
                raise self._fault("copy", error) from None

    def close(self) -> None:
        """Close the file; a second close does nothing."""
        with self._lock:
            self._db.close()

    def _fault(self, action: str, error: Exception) -> Fault:
        return Fault(
            f"This node cannot {action} its state file {self._path}: {error}. {self._advice(error)} "
            "Nothing was changed there and no log entry was skipped; this node stops serving."
        )

    def _advice(self, error: Exception) -> str:
        text = str(error).lower()
        if "full" in text:
            return "Free space on its disk, then restart the node."
        if "readonly" in text or "unable to open" in text or isinstance(error, PermissionError):
            writable = os.access(self._path.parent, os.W_OK)
            what = "file" if writable else "directory"
            return f"Make the {what} writable for this user, then restart the node."
        if "locked" in text:
            return "Another process holds it: stop that one first."
        return f"If it is damaged: {FILLED_BY_OTHERS}"
