"""Does the cells of a matrix one after the other: run, judge, save; what is there is not done again."""

from __future__ import annotations

import asyncio
import datetime
import shutil
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from evaluation.checking import judge as checker
from evaluation.checking.verdict import Judgement
from evaluation.history import read_history
from evaluation.record import RunRecord
from evaluation.run import matrix, scenario, secluded
from evaluation.run.evidence import FILE, load_evidence
from evaluation.run.matrix import Cell, Conclusion, Result
from evaluation.run.plan import RunPlan, Timing
from evaluation.traffic.mix import NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

#: What a run takes that has not been measured yet, s.
_GUESS_S = 35.0


@dataclass(frozen=True, slots=True)
class Outline:
    """What is asked for."""

    systems: tuple[str, ...]
    faults: tuple[str, ...]
    seeds: tuple[int, ...]
    workloads: tuple[str, ...] = NAMES
    minutes: float | None = None
    """Cells that would not be over by then are not begun."""
    essence_only: bool = False
    """Only what a short run must have."""
    timing: Timing = field(default_factory=Timing)


class Watcher:
    """What a campaign tells whoever looks on; does nothing by itself."""

    def planned(self, cells: Sequence[Cell], done: int) -> None: ...
    def begins(self, cell: Cell) -> None: ...
    def does(self, cell: Cell, what: str) -> None: ...
    def ends(self, cell: Cell, conclusion: Conclusion, took_s: float) -> None: ...
    def leaves_out(self, cells: Sequence[Cell]) -> None: ...
    def excludes(self, fault: str, reasons: Mapping[str, str]) -> None:
        """The fault can strike none of the systems; why, for each."""


async def conduct(outline: Outline, out: Path, watcher: Watcher) -> dict[Cell, Conclusion]:
    """All cells that fit; those of `out` that are finished count without being done again."""
    from evaluation.faulting.catalogue import FAULTS
    from evaluation.systems.catalogue import SYSTEMS

    made = {name: SYSTEMS[name]() for name in outline.systems}
    excluded = {
        fault: {name: why for name, system in made.items() if (why := FAULTS[fault].why_not(system))}
        for fault in outline.faults
    }
    cells = matrix.cells(
        outline.systems,
        outline.faults,
        outline.seeds,
        lambda system, fault: system not in excluded[fault],
        essence_only=outline.essence_only,
    )
    await asyncio.to_thread(_save_outline, outline, cells, excluded, out)
    for fault, reasons in excluded.items():
        if reasons.keys() == made.keys():
            watcher.excludes(fault, reasons)
    concluded = {cell: found for cell in cells if (found := finished(out / cell.path, outline.workloads))}
    watcher.planned(cells, len(concluded))
    began = time.monotonic()
    end = None if outline.minutes is None else began + outline.minutes * 60
    took: list[float] = []
    left = [cell for cell in cells if cell not in concluded]
    while left:
        expected = max(took[-5:], default=_GUESS_S)
        if end is not None and time.monotonic() + expected > end:
            watcher.leaves_out(left)
            break
        cell = left.pop(0)
        watcher.begins(cell)
        start = time.monotonic()
        conclusion = await one(
            cell, outline, out / cell.path, lambda what, cell=cell: watcher.does(cell, what)
        )
        took.append(time.monotonic() - start)
        concluded[cell] = conclusion
        watcher.ends(cell, conclusion, took[-1])
    return concluded


async def one(cell: Cell, outline: Outline, folder: Path, progress: Callable[[str], None]) -> Conclusion:
    """One cell from its beginning: what is left of an unfinished attempt is removed."""
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    plan = RunPlan(cell.system, cell.fault, cell.seed, outline.workloads, outline.timing)
    run = secluded.run if secluded.needed(cell.fault) else scenario.run
    record = await run(plan, folder, progress)
    progress("judging")
    judgement = await asyncio.to_thread(judge, folder)
    conclusion = matrix.conclude(record, judgement)
    if matrix.EXIT[conclusion.result] == 0:
        shutil.rmtree(folder / "logs", ignore_errors=True)
    return conclusion


def judge(folder: Path) -> Judgement | None:
    """Judge a saved run, and save the verdict; None if it is in error, and so has nothing to be judged."""
    record = RunRecord.load(folder)
    if record.error:
        (folder / "verdict.json").unlink(missing_ok=True)
        return None
    operations = list(read_history(folder / "history.jsonl"))
    judgement = checker.judge(record, operations, load_evidence(folder / FILE))
    temporary = folder / "verdict.json.new"
    temporary.write_bytes(orjson.dumps(judgement.to_json(), option=orjson.OPT_INDENT_2))
    temporary.replace(folder / "verdict.json")
    return judgement


def finished(folder: Path, workloads: Sequence[str]) -> Conclusion | None:
    """What a saved and judged run with these workloads means; None if there is none, or it was in error."""
    try:
        record = RunRecord.load(folder)
        judgement = Judgement.from_json(orjson.loads((folder / "verdict.json").read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if record.error or record.workloads != list(workloads):
        return None
    return matrix.conclude(record, judgement)


def saved(out: Path) -> Iterator[tuple[Cell, Path]]:
    """All runs below a folder."""
    for path in sorted(out.glob("*/*/*/run.json")):
        system, fault, seed = path.parent.relative_to(out).parts
        yield Cell(system, fault, int(seed)), path.parent


def results_of(conclusions: dict[Cell, Conclusion]) -> list[Result]:
    return [conclusion.result for conclusion in conclusions.values()]


def _save_outline(
    outline: Outline, cells: Sequence[Cell], excluded: Mapping[str, Mapping[str, str]], out: Path
) -> None:
    asked: dict[str, Any] = {
        "systems": list(outline.systems),
        "faults": list(outline.faults),
        "workloads": list(outline.workloads),
        "seeds": list(outline.seeds),
        "minutes": outline.minutes,
        "command": command(outline),
        "started_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cells": [cell.path for cell in cells],
        "does_not_apply": {fault: dict(reasons) for fault, reasons in excluded.items() if reasons},
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "matrix.json").write_bytes(orjson.dumps(asked, option=orjson.OPT_INDENT_2))


def command(outline: Outline) -> str:
    """What repeats it."""
    parts = [
        "chroma-cluster evaluate",
        f"--systems {','.join(outline.systems)}",
        f"--faults {','.join(outline.faults)}",
        f"--seed {outline.seeds[0]}",
        f"--seeds {len(outline.seeds)}",
    ]
    if outline.workloads != NAMES:
        parts.append(f"--workloads {','.join(outline.workloads)}")
    if outline.minutes is not None:
        parts.append(f"--minutes {outline.minutes:g}")
    return " ".join(parts)
