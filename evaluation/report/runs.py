"""What is saved below one folder: runs with their verdicts, and what stands beside them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import orjson

from evaluation.checking.verdict import Judgement, Verdict
from evaluation.history import Operation, read_history
from evaluation.record import RunRecord
from evaluation.report.standing import Standing
from evaluation.run.matrix import Conclusion, Result, conclude

if TYPE_CHECKING:
    from pathlib import Path


_STANDINGS = {
    Result.BROKEN: Standing.BROKEN,
    Result.UNCONVICTED: Standing.UNCONVICTED,
    Result.ERROR: Standing.ERROR,
    Result.UNKNOWN: Standing.UNKNOWN,
    Result.CONVICTED: Standing.ANOMALY,
    Result.ANOMALY: Standing.ANOMALY,
    Result.OK: Standing.OK,
}


@dataclass
class Run:
    """One run; what of it cannot be read is in `problem`, and then it is an error."""

    folder: Path
    system: str
    fault: str
    seed: str
    record: RunRecord | None = None
    judgement: Judgement | None = None
    problem: str = ""

    @property
    def key(self) -> str:
        """Unique in the report, and fit for an HTML id."""
        return f"{self.system}.{self.fault}.{self.seed}"

    @property
    def error(self) -> str:
        return self.problem or (self.record.error if self.record else "run.json is missing")

    @property
    def promises(self) -> dict[str, Any]:
        return self.record.promises if self.record else {}

    @cached_property
    def conclusion(self) -> Conclusion:
        """The same that `evaluate` and `judge` print."""
        if self.problem or self.record is None:
            return Conclusion(Result.ERROR, (self.error,))
        return conclude(self.record, self.judgement)

    @property
    def standing(self) -> Standing:
        """The conclusion, but a run in which nothing at all was checked is never ok."""
        if not self.error and (
            self.judgement is None
            or all(finding.verdict is Verdict.NOT_CHECKED for finding in self.judgement.findings)
        ):
            return Standing.NOT_CHECKED
        return _STANDINGS[self.conclusion.result]

    @cached_property
    def operations(self) -> list[Operation]:
        """Empty when there is no history; ValueError on a damaged one."""
        path = self.folder / "history.jsonl"
        return list(read_history(path)) if path.exists() else []

    def forget_operations(self) -> None:
        """A report holds hundreds of runs; their histories are needed one at a time."""
        self.__dict__.pop("operations", None)


@dataclass
class Evaluation:
    """All that one folder holds."""

    folder: Path
    runs: list[Run]
    matrix: dict[str, Any] = field(default_factory=dict[str, Any])
    cost: dict[str, Any] = field(default_factory=dict[str, Any])
    compactor: dict[str, Any] = field(default_factory=dict[str, Any])
    problems: list[str] = field(default_factory=list[str])
    """Files beside the runs that cannot be read."""

    def of(self, system: str, fault: str) -> list[Run]:
        return [run for run in self.runs if run.system == system and run.fault == fault]


def load(folder: Path) -> Evaluation:
    """Reads everything but the histories. FileNotFoundError if there is no such folder."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder; `chroma-cluster evaluate --out {folder}` makes one")
    # A run that died early has its folder and perhaps its history, but no run.json: it must not vanish.
    found = sorted(
        {path.parent for name in ("run.json", "history.jsonl") for path in folder.glob(f"*/*/*/{name}")}
    )
    # The compactor is a scenario of its own, with its own section.
    found = [path for path in found if not path.parent.parent.name.startswith("compactor-")]
    evaluation = Evaluation(folder, [_load_run(path) for path in found])
    for name in ("matrix", "cost", "compactor"):
        # Beside the runs, or in a folder of its own below them.
        for path in (folder / f"{name}.json", folder / name / f"{name}.json"):
            if path.exists():
                try:
                    setattr(evaluation, name, _object(path))
                except ValueError as error:
                    evaluation.problems.append(f"{path.relative_to(folder)}: {error}")
                break
    return evaluation


def _object(path: Path) -> dict[str, Any]:
    value = orjson.loads(path.read_bytes())
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return cast("dict[str, Any]", value)


def _load_run(folder: Path) -> Run:
    run = Run(folder, folder.parent.parent.name, folder.parent.name, folder.name)
    try:
        if (folder / "run.json").exists():
            run.record = RunRecord.load(folder)
        if (folder / "verdict.json").exists():
            run.judgement = Judgement.from_json(orjson.loads((folder / "verdict.json").read_bytes()))
    except (ValueError, KeyError, TypeError) as error:
        run.problem = f"cannot be read: {type(error).__name__}: {error}"
    return run
