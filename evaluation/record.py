"""One run on disk: what was done (`run.json`), seen (`history.jsonl`) and concluded (`verdict.json`).

OUT/matrix.json                    what was asked for: systems, faults, seeds, command, versions
OUT/<system>/<fault>/<seed>/run.json        `RunRecord`
                            history.jsonl   `evaluation.history.Operation`, one a line
                            log.json        committed entries of each member, where there is a log
                            verdict.json    `checking.verdict.Judgement.to_json()`; written again by `judge`
                            logs/           ends of the processes' logs, kept when something was wrong
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened during the run. Times as in the history: nanoseconds from the run's start."""

    at_ns: int
    kind: str
    """fault-begin, fault-end, leader, role, process, health, note."""
    member: str | None = None
    text: str = ""
    term: int | None = None
    role: str | None = None


@dataclass(slots=True, kw_only=True)
class RunRecord:
    """All that a judge and a report need beside the history."""

    system: str
    fault: str
    workloads: list[str]
    seed: int
    command: str
    """What repeats this run."""
    started_at: str
    """Wall clock, ISO 8601, UTC; for people only."""
    error: str = ""
    """Not empty: the set-up or a health check failed; this run is an error, not a finding."""
    members: list[str] = field(default_factory=list[str])
    entries: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """name, member, and `side`: majority, minority or all, as long as the fault lasts."""
    promises: dict[str, Any] = field(default_factory=dict[str, Any])
    fault_begin_ns: int = 0
    fault_end_ns: int = 0
    quiet_ns: int = 0
    """When the final reads begin."""
    end_ns: int = 0
    fault_detail: dict[str, Any] = field(default_factory=dict[str, Any])
    """Whom it struck, with which numbers."""
    events: list[Event] = field(default_factory=list[Event])
    measured: dict[str, Any] = field(default_factory=dict[str, Any])
    """memory_mib, disk_bytes, processes, operations by outcome, health checks."""
    versions: dict[str, str] = field(default_factory=dict[str, str])

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / "run.json.new"
        temporary.write_bytes(orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2))
        temporary.replace(folder / "run.json")

    @staticmethod
    def load(folder: Path) -> RunRecord:
        raw = orjson.loads((folder / "run.json").read_bytes())
        raw["events"] = [Event(**event) for event in raw["events"]]
        return RunRecord(**raw)
