"""What a node of this project has in its journal, read from outside; and how to damage it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final

from cluster.raft.configuration import is_configuration
from cluster.raft.meta import Meta
from cluster.state.commands import decode_group
from cluster.state.requests import unscoped
from evaluation.checking.log import LogEntry
from evaluation.failure import SystemFailure

if TYPE_CHECKING:
    from pathlib import Path

FILE: Final = "raft.sqlite"
_KEY: Final = "k:"
"""Before a client's own Idempotency-Key in the log."""


def committed_entries(path: Path, commit_index: int | None) -> list[LogEntry]:
    """The committed entries of one node, ascending; a request counts where it took effect, so once.

    `commit_index`: as the running node says; None: what its journal knows, which may be a little less.
    """
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
        meta, _ = Meta.decode(connection.execute("SELECT body FROM meta").fetchone()[0])
        last = max(meta.commit_index, commit_index or 0)
        rows = connection.execute(
            "SELECT idx, term, payload FROM entries WHERE idx <= ? ORDER BY idx", (last,)
        ).fetchall()
    seen: set[str] = set()
    entries: list[LogEntry] = []
    for index, term, payload in rows:
        requests: list[str] = []
        # An empty payload is Raft's own.
        for proposal in decode_group(payload).proposals if payload and not is_configuration(payload) else ():
            request = (unscoped(proposal.request_id) or proposal.request_id).removeprefix(_KEY)
            if request not in seen:
                seen.add(request)
                requests.append(request)
        entries.append(LogEntry(index, term, tuple(requests)))
    return entries


def first_index(path: Path) -> int:
    """The oldest entry that a node's journal still holds, 0 if it holds none; the node may run."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
        found = connection.execute("SELECT MIN(idx) FROM entries").fetchone()[0]
    return int(found or 0)


def flip_byte(path: Path) -> str:
    """Flip one byte in the longest entry of a stopped node's journal; says where.

    Raises:
        SystemFailure: the journal holds no entry long enough.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        # Into the file itself: a byte there that the write-ahead log overrides would mean nothing.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        row = connection.execute(
            "SELECT idx, payload FROM entries ORDER BY length(payload) DESC LIMIT 1"
        ).fetchone()
    if row is None or len(row[1]) < 16:
        raise SystemFailure(f"{path} has no entry in which a byte could be flipped")
    index, payload = row
    content = bytearray(path.read_bytes())
    at = content.find(payload[:64])
    if at < 0:
        raise SystemFailure(f"the entry at index {index} was not found in {path}")
    content[at + 8] ^= 0x10
    path.write_bytes(content)
    return f"a bit in the entry at index {index}, byte {at + 8} of {path.name}"
