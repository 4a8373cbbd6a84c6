"""The committed entries of a run's members, saved beside its history: evidence for the judge.

log.json in a run's folder: {member: [[index, term, [request id, ...]], ...]}.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import orjson

from evaluation.checking.log import LogEntry, LogEvidence

if TYPE_CHECKING:
    from pathlib import Path

FILE = "log.json"


@runtime_checkable
class Journaled(Protocol):
    """A system whose members keep a log that can be read."""

    async def log_evidence(self) -> LogEvidence: ...


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
