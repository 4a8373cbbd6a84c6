"""The committed entries of this project's nodes, read from their journals: evidence for the judge.

LOG.json in a run's folder: {member: [[index, term, [request id, ...]], ...]}.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import orjson

from cluster.commands import decode_group
from cluster.raft.journal import Meta, checksum
from evaluation.checking.log import LogEntry, LogEvidence

if TYPE_CHECKING:
    from pathlib import Path

FILE = "log.json"


@runtime_checkable
class Journaled(Protocol):
    """A system whose members keep journals that can be read."""

    def journal(self, member: str) -> Path: ...


def read_journal(path: Path, applied: int = 0) -> list[LogEntry]:
    """What is committed in one node's journal, which may be in use; the front may be compacted away.

    `applied`: what the node says it has applied. It writes down how far it knows of commits only with the
    next entry.

    Raises:
        ValueError: a committed entry is damaged.
        sqlite3.Error: the file cannot be read.
    """
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        connection.execute("BEGIN")
        (body,) = connection.execute("SELECT body FROM meta").fetchone()
        committed = max(applied, Meta.decode(bytes(body)).commit_index)
        rows = connection.execute(
            "SELECT idx, term, crc, payload FROM entries WHERE idx <= ? ORDER BY idx", (committed,)
        ).fetchall()
    entries: list[LogEntry] = []
    seen: set[str] = set()
    for index, term, crc, payload in rows:
        if checksum(index, term, payload) != crc:
            raise ValueError(f"entry {index} of {path} does not match its checksum")
        proposals = decode_group(payload).proposals if payload else ()
        # A client's key has a mark before it that tells it from keys that nodes make.
        ids = [proposal.request_id.removeprefix("k:") for proposal in proposals]
        # A repeat of a request takes no effect: it is answered from the table of requests.
        fresh = tuple(each for each in dict.fromkeys(ids) if each not in seen)
        seen.update(fresh)
        entries.append(LogEntry(index, term, fresh))
    return entries


def save_evidence(evidence: LogEvidence, path: Path) -> None:
    raw = {
        member: [[entry.index, entry.term, list(entry.request_ids)] for entry in entries]
        for member, entries in evidence.members.items()
    }
    path.write_bytes(orjson.dumps(raw))


def load_evidence(path: Path) -> LogEvidence | None:
    """None if the run has none."""
    try:
        raw = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return LogEvidence(
        {
            member: [LogEntry(index, term, tuple(ids)) for index, term, ids in entries]
            for member, entries in raw.items()
        }
    )
