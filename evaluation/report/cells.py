"""One cell of the matrix: all runs of one system under one fault, merged over their seeds. Pure."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from evaluation.checking.verdict import PROPERTIES, Finding, Verdict
from evaluation.report.measures import Measures, read_measures
from evaluation.report.numbers import MISSING, whole
from evaluation.report.standing import Standing, standing_of, worst

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from evaluation.report.runs import Run


@dataclass(frozen=True)
class MergedCell:
    """All runs of one system under one fault: the matrix's cells (`run.matrix.Cell`) of all its seeds."""

    system: str
    fault: str
    runs: Sequence[Run]
    measures: Sequence[Measures] = field(default_factory=list[Measures])
    """Of the runs that are no errors."""
    applies: bool = True

    @property
    def standing(self) -> Standing:
        if not self.runs and not self.applies:
            return Standing.INAPPLICABLE
        return worst(run.standing for run in self.runs)

    @property
    def worst_run(self) -> Run:
        """The one to look at first."""
        return next(run for run in self.runs if run.standing is self.standing)

    @property
    def like_worst(self) -> int:
        return sum(run.standing is self.standing for run in self.runs)

    @property
    def measured(self) -> bool:
        """Has any run a judgement that says something about the system?"""
        return any(not run.error and run.judgement for run in self.runs)

    def properties(self) -> dict[str, Standing]:
        """Property -> its worst standing over the seeds."""
        return {
            name: worst(
                standing_of(finding, run.promises)
                for run in self.runs
                if not run.error and run.judgement
                for finding in run.judgement.findings
                if finding.property == name
            )
            for name in PROPERTIES
        }

    def count(self, *names: str) -> int | None:
        """Violating operations or records of these properties, added up; None if none was checked."""
        checked = [finding for finding in self._findings() if finding.property in names]
        checked = [finding for finding in checked if finding.verdict in (Verdict.OK, Verdict.VIOLATION)]
        return sum(finding.count for finding in checked) if checked else None

    def _findings(self) -> Iterable[Finding]:
        for run in self.runs:
            if not run.error and run.judgement:
                yield from run.judgement.findings

    @property
    def stale(self) -> int | None:
        """Reads at any level; None if no read was placed."""
        return added(sum(one.stale.values()) for one in self.measures if one.stale)

    @property
    def stale_words(self) -> str:
        """With the levels at which there was staleness, where there are several."""
        levels = self.stale_by_level
        stale = [f"{count:,} {level}" for level, count in levels.items() if count]
        return ", ".join(stale) if len(levels) > 1 and stale else whole(self.stale)

    @property
    def own_errors(self) -> dict[str, int]:
        """What the system counted itself: kind -> count."""
        counts: Counter[str] = Counter()
        for run in self.runs:
            if not run.error and run.record:
                found: dict[str, int] = run.record.measured.get("system_errors") or {}
                counts.update(found)
        return {kind: count for kind, count in counts.items() if count}

    @property
    def own_errors_words(self) -> str:
        if not self.measured:
            return MISSING
        return ", ".join(f"{count:,} {kind}" for kind, count in self.own_errors.items()) or "0"

    @property
    def reasons(self) -> str:
        """What its worst run violates, or lacks, in words."""
        return "; ".join(self.worst_run.conclusion.reasons)

    @property
    def stale_by_level(self) -> dict[str, int]:
        levels = dict.fromkeys(level for one in self.measures for level in one.stale)
        return {level: sum(one.stale.get(level, 0) for one in self.measures) for level in levels}

    @property
    def reads_by_level(self) -> dict[str, int]:
        levels = dict.fromkeys(level for one in self.measures for level in one.reads)
        return {level: sum(one.reads.get(level, 0) for one in self.measures) for level in levels}

    def median(self, of: Callable[[Measures], float | None]) -> float | None:
        """Over the seeds; None where nothing was measured."""
        values = [value for one in self.measures if (value := of(one)) is not None]
        return statistics.median(values) if values else None


#: From what promises most to what promises least.
LEVELS = ("linearizable", "session", "eventual", "default")


def stale_reads(cells: Sequence[MergedCell]) -> str:
    """Stale reads of all of them, at each level where there are several; a dash if none was placed."""
    levels = _levels(cells)
    stale = {name: sum(cell.stale_by_level.get(name, 0) for cell in cells) for name in levels}
    reads = {name: sum(cell.reads_by_level.get(name, 0) for cell in cells) for name in levels}
    return _each({name: f"{stale[name]:,} of {reads[name]:,}" for name in levels})


def stale_faults(cells: Sequence[MergedCell]) -> str:
    """The same, counted in cells: in how many of them a read was stale."""
    said: dict[str, str] = {}
    for name in _levels(cells):
        placed = [cell.stale_by_level[name] for cell in cells if name in cell.stale_by_level]
        said[name] = f"{sum(count > 0 for count in placed)} of {len(placed)}"
    return _each(said)


def _levels(cells: Sequence[MergedCell]) -> list[str]:
    known = {level for cell in cells for level in cell.stale_by_level}
    return sorted(known, key=lambda name: (LEVELS.index(name) if name in LEVELS else len(LEVELS), name))


def _each(said: Mapping[str, str]) -> str:
    if len(said) == 1:
        return next(iter(said.values()))
    return ", ".join(f"{name}: {words}" for name, words in said.items()) or MISSING


def cell_of(system: str, fault: str, runs: Sequence[Run], *, applies: bool = True) -> MergedCell:
    measures = [
        read_measures(run.judgement.measures) for run in runs if run.judgement is not None and not run.error
    ]
    return MergedCell(system, fault, runs, measures, applies)


def added(values: Iterable[int | None]) -> int | None:
    """None if nothing was counted; a count that is missing beside others counts as nothing."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
