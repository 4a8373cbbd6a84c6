"""What is kept of a run: its record, its history, what it had of a log, the ends of the processes' logs."""

from __future__ import annotations

import contextlib
import datetime
import platform
from importlib.metadata import version
from typing import TYPE_CHECKING

from evaluation.history import write_history
from evaluation.record import RunRecord
from evaluation.run.evidence import FILE, save_evidence

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from evaluation.checking.log import LogEvidence
    from evaluation.history import Operation
    from evaluation.run.plan import RunPlan


def new_record(plan: RunPlan) -> RunRecord:
    """The record of a run that has not begun."""
    return RunRecord(
        system=plan.system,
        fault=plan.fault,
        workloads=list(plan.workloads),
        seed=plan.seed,
        command=plan.command,
        started_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions={
            "chroma-cluster": version("chroma-cluster"),
            "chromadb": version("chromadb"),
            "python": platform.python_version(),
        },
    )


def save(
    record: RunRecord,
    operations: Iterable[Operation],
    evidence: LogEvidence | None,
    data: Path,
    folder: Path,
) -> None:
    """Everything of a run in `folder`, the record last; `data`: where the processes wrote."""
    folder.mkdir(parents=True, exist_ok=True)
    write_history(folder / "history.jsonl", operations)
    if evidence is not None:
        save_evidence(evidence, folder / FILE)
    keep_logs(data, folder / "logs")
    record.save(folder)


def keep_logs(data: Path, folder: Path, most_bytes: int = 200_000) -> None:
    """The ends of all log files below `data`."""
    for path in data.rglob("*.log"):
        with contextlib.suppress(OSError):
            name = "-".join(path.relative_to(data).parts)
            folder.mkdir(parents=True, exist_ok=True)
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - most_bytes))
                (folder / name).write_bytes(file.read())
