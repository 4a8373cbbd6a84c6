"""What a file shows need not be on the disk: a process that was killed inside an fsync leaves such a tail.

Its successor reads that tail back from the kernel's memory. Whatever rests on it (an acknowledgement, a vote,
a marker) may be promised only once it is on the disk; until then a loss of power takes it away again. So who
opens a file makes what it finds there durable first, with these functions.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

_SQLITE_FILES: Final = ("", "-wal", "-journal")


def sync_sqlite(path: Path) -> None:
    """Make an SQLite file and what waits in its logs durable. To be called before this process opens it:
    closing a second descriptor of a file that SQLite has open would drop SQLite's locks on it.

    Raises:
        OSError: the disk refused; nothing that the file shows may be relied on.
    """
    for suffix in _SQLITE_FILES:
        with contextlib.suppress(FileNotFoundError):
            _sync(f"{path}{suffix}")
    _sync(path.parent)


def sync_tree(directory: Path) -> None:
    """Make every file below `directory`, and the names of them, durable; before anybody has them open.

    Raises:
        OSError: the disk refused; nothing that the files show may be relied on.
    """
    for folder, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(folder, name)
            # What is no plain file (a socket, a pipe) has no content of its own.
            if os.path.isfile(path):
                with contextlib.suppress(FileNotFoundError):
                    _sync(path)
        _sync(folder)


def settle(connection: sqlite3.Connection) -> None:
    """Bring everything from the write-ahead log of a freshly opened database into it, durably.

    `synchronous` must be NORMAL at least. After this the log is empty, so what is read comes from the
    database file alone, written and synced by this very call: a sync that failed for an earlier process (and
    that the kernel does not report twice) does not count.

    Raises:
        OSError: it could not be brought over whole, because somebody else has the database open.
    """
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise OSError("database is locked: another process has it open, and its log cannot be settled")


def _sync(path: str | os.PathLike[str]) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
