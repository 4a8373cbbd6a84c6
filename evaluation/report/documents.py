"""The generated blocks of a Markdown document, and its figures in a folder beside it, from saved runs."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import TYPE_CHECKING, Any

from evaluation.report import curves, grid, storage, style, timeline
from evaluation.report.cells import stale_faults, stale_reads
from evaluation.report.costs import Table, cost_tables, operation
from evaluation.report.counterexamples import CounterExample, clearest
from evaluation.report.markers import names, replaced, table
from evaluation.report.matrices import METRICS, Matrix, Metric, matrix_of
from evaluation.report.names import SYSTEMS, fault_words
from evaluation.report.numbers import MISSING, duration, percent, whole
from evaluation.report.page import overview_of, stale_by_system, view_of
from evaluation.report.runs import load
from evaluation.report.standing import Standing
from evaluation.report.telling import chosen, spans, telling_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from matplotlib.figure import Figure

    from evaluation.report.cells import MergedCell
    from evaluation.report.measures import Measures
    from evaluation.report.page import RunView
    from evaluation.report.runs import Evaluation

EXAMPLES = 5


def write_documents(
    folder: Path, document: Path, progress: Callable[[str], None] = lambda _: None
) -> list[Path]:
    """Replace what stands between the document's markers; returns all files written.

    Raises:
        FileNotFoundError: there is no such folder or document.
        ValueError: a marker without an end, or of an unknown name. Nothing was written.
    """
    text = document.read_text(encoding="utf-8")
    wanted = names(text)
    draft = _Draft(load(folder), document.with_suffix(""), progress)
    made = {name: draft.block(name) for name in wanted}
    document.write_text(replaced(text, made), encoding="utf-8")
    figures = draft.folder
    if draft.files:
        figures.mkdir(exist_ok=True)
        # Only what this module writes: a figure of an earlier run that has no successor must not stay.
        for old in figures.iterdir():
            if old.suffix in (".svg", ".png") and old.name not in draft.files:
                old.unlink()
    for name, content in draft.files.items():
        (figures / name).write_bytes(content)
    return [document, *(figures / name for name in draft.files)]


class _Draft:
    """Blocks as they are asked for; each run's history is read at most once."""

    def __init__(self, evaluation: Evaluation, folder: Path, progress: Callable[[str], None]) -> None:
        self.evaluation = evaluation
        self.folder = folder
        self.files: dict[str, bytes] = {}
        self.matrix: Matrix = matrix_of(evaluation)
        self._progress = progress
        self._read: list[RunView] | None = None

    def block(self, name: str) -> str:
        blocks: dict[str, Callable[[], str]] = {
            "provenance": self.provenance,
            "overview": self.overview,
            "guide": self.guide,
            "verdicts": self.verdicts,
            "staleness": self.staleness,
            "counter-examples": self.counter_examples,
            "timelines": self.timelines,
            "cost": self.cost,
            "compactor": self.compactor,
            **{f"table-{metric.id}": (lambda metric=metric: self.metric(metric)) for metric in METRICS},
        }
        if name not in blocks:
            raise ValueError(f"no such block: {name}. Known: {', '.join(sorted(blocks))}")
        return blocks[name]()

    @property
    def views(self) -> list[RunView]:
        if self._read is None:
            self._read = []
            for number, run in enumerate(self.evaluation.runs, 1):
                self._progress(f"{number} of {len(self.evaluation.runs)}: {run.key}")
                self._read.append(view_of(run, draw=False))
        return self._read

    # ------------------------------------------------------------------ blocks

    def provenance(self) -> str:
        runs = self.evaluation.runs
        if not runs:
            return "No runs."
        counts = Counter(run.standing for run in runs)
        said = ", ".join(f"{counts[one]} {one.value}" for one in Standing if counts[one])
        records = [run.record for run in runs if run.record]
        begun = sorted(record.started_at for record in records)
        versions = {f"{name} {value}" for record in records for name, value in record.versions.items()}
        seeds = sorted({record.seed for record in records})
        lines = [
            f"{len(runs)} runs of {len(self.matrix.systems)} systems under {len(self.matrix.faults)} faults: "
            f"{said}.",
            f"Seeds {spans(seeds)}. First run {begun[0][:16]}, last {begun[-1][:16]} (UTC)."
            if records
            else "",
            f"Versions: {', '.join(sorted(versions))}." if versions else "",
        ]
        command = self.evaluation.matrix.get("command")
        if command:
            lines.append(f"\n    {command}")
        return "\n".join(line for line in lines if line)

    def overview(self) -> str:
        rows: list[list[str]] = []
        for system in self.matrix.systems:
            one = overview_of(self.matrix, system)
            cells = [cell for cell in self.matrix.of_system(system) if cell.measured]
            said = ", ".join(f"{one.cells[each]} {each.value}" for each in _RUN if one.cells.get(each))
            rows.append(
                [
                    f"`{system}`",
                    said or "not run",
                    whole(one.lost),
                    stale_reads(cells),
                    whole(one.duplicated),
                    _over(cells, "write", "majority"),
                    _over(cells, "write", "minority"),
                    one.violated_words + (f"; its own errors: {one.own_errors}" if one.own_errors else ""),
                ]
            )
        columns = [
            "system", "faults by verdict", "lost", "stale reads", "duplicated", "writes available, majority",
            "writes available, minority", "violated under some fault",
        ]  # fmt: skip
        return (
            table(columns, rows, frozenset({2, 3, 4, 5, 6}))
            + "\n\nAvailable: fraction of the fault's 100 ms windows with an acknowledged write, median over "
            "all faults."
        )

    def guide(self) -> str:
        costs: dict[str, dict[str, Any]] = {
            one["system"]: one for one in self.evaluation.cost.get("systems") or ()
        }
        rows: list[list[str]] = []
        for system in self.matrix.systems:
            cells = [cell for cell in self.matrix.of_system(system) if cell.measured]
            cost = costs.get(system, {})
            failover = operation(cost, "failover")
            lost = [count for cell in cells if (count := cell.count("lost")) is not None]
            rows.append(
                [
                    f"`{system}`",
                    f"{sum(count > 0 for count in lost)} of {len(lost)}" if lost else MISSING,
                    stale_faults(cells),
                    self._pause(system, "kill-leader"),
                    self._pause(system, "leader-isolated"),
                    duration(_median(cells, lambda each: _p50(each, "warmup", "write"))),
                    duration(_median(cells, lambda each: _p50(each, "warmup", "read"))),
                    MISSING
                    if cost.get("memory_mib_total") is None
                    else f"{cost['memory_mib_total']:,.0f} MiB",
                    whole(cost.get("processes_total")),
                    ("; ".join(failover["commands"]) or "nothing") if "commands" in failover else MISSING,
                ]
            )
        columns = [
            "system", "faults that lost writes", "faults with stale reads", "pause at `kill-leader`",
            "pause at `leader-isolated`", "write p50", "read p50", "memory", "processes",
            "typed to fail over",
        ]  # fmt: skip
        note = (
            "Stale: with several read levels, at each; only `linearizable` promises that none is. "
            "Pause: the longest time without an acknowledged write for the majority's clients, median over "
            "seeds. Latencies: in the chaos traffic before the fault, every link through a proxy."
        )
        return table(columns, rows, frozenset(range(1, 9))) + f"\n\n{note}"

    def _pause(self, system: str, fault: str) -> str:
        metric = next(one for one in METRICS if one.id == "pause")
        return metric.text(self.matrix.cell(system, fault)) if fault in self.matrix.faults else MISSING

    def verdicts(self) -> str:
        with style.styled():
            figure = grid.draw(self.matrix)
            if figure is None:
                return "No runs."
            return self._svg("verdicts", figure, "Verdicts: a row a fault, a column a system")

    def metric(self, metric: Metric) -> str:
        rows = [
            [f"`{fault}`", *(metric.text(self.matrix.cell(system, fault)) for system in self.matrix.systems)]
            for fault in self.matrix.faults
        ]
        columns = ["fault", *self.matrix.systems]
        numeric = frozenset(range(1, len(columns)))
        return f"{table(columns, rows, numeric)}\n\n{metric.title}: {metric.note}."

    def staleness(self) -> str:
        with style.styled():
            figure = curves.draw(curves.lines_of(stale_by_system(self.views, self.matrix)))
            if figure is None:
                return "No staleness was measured."
            return self._svg(
                "staleness", figure, "Share of reads that miss an acknowledged write, by its age"
            )

    def counter_examples(self) -> str:
        found = [one for one in clearest(each for view in self.views for each in view.examples) if one.svg]
        parts = [self._example(one) for one in chosen(found, EXAMPLES)]
        return "\n\n".join(parts) or "No violation was found."

    def _example(self, one: CounterExample) -> str:
        name = f"{one.system}-{one.property}.svg"
        self.files[name] = one.svg.encode()
        return (
            f"**{one.system}, {one.property}** ({one.standing.value}; `{one.fault}`, seed {one.seed}): "
            f"{one.detail}.\n\n"
            f"![{one.property} on {one.system}: {len(one.words)} requests by client]"
            f"({self.folder.name}/{name})"
        )

    def timelines(self) -> str:
        runs = telling_runs(self.evaluation.runs)
        parts: list[str] = []
        for run in runs:
            assert run.record is not None
            with style.styled():
                figure = timeline.draw(run.record, run.operations)
                run.forget_operations()
                if figure is None:
                    continue
                name = f"{run.system}-{run.fault}.png"
                self.files[name] = style.to_png(figure)
            words = fault_words().get(run.fault, "")
            parts.append(
                f"**{run.system}** ({SYSTEMS.get(run.system, '')}), `{run.fault}`: {words}; "
                f"seed {run.seed}.\n\n"
                f"![{run.system} under {run.fault}]({self.folder.name}/{name})"
            )
        return "\n\n".join(parts) or "No run has a history."

    def cost(self) -> str:
        return self._tables(cost_tables(self.evaluation.cost)) or "No cost was measured."

    def compactor(self) -> str:
        raw = self.evaluation.compactor
        if not raw:
            return "The compactor was not run."
        with style.styled():
            figure = storage.draw(storage.telling(raw))
            drawn = self._svg("compactor", figure, "Who held the lock when") if figure else ""
        return f"{drawn}\n\n{self._tables(storage.tables(raw))}".strip()

    def _tables(self, tables: Iterable[Table]) -> str:
        return "\n\n".join(
            f"**{one.title}**\n\n"
            + table(list(one.columns), [list(row) for row in one.rows], one.numeric)
            + (f"\n\n{one.note}" if one.note else "")
            for one in tables
        )

    def _svg(self, name: str, figure: Figure, words: str) -> str:
        self.files[f"{name}.svg"] = style.to_svg(figure).encode()
        return f"![{words}]({self.folder.name}/{name}.svg)"


_RUN = [one for one in Standing if one is not Standing.ABSENT]


def _median(cells: Iterable[MergedCell], of: Callable[[Measures], float | None]) -> float | None:
    values = [value for cell in cells for each in cell.measures if (value := of(each)) is not None]
    return statistics.median(values) if values else None


def _p50(measures: Measures, phase: str, kind: str) -> float | None:
    found = measures.latency.get(phase, {}).get(kind)
    return found.p50 if found else None


def _over(cells: Iterable[MergedCell], kind: str, side: str) -> str:
    def of(measures: Measures) -> float | None:
        found = measures.side(side)
        return found.available.get(kind) if found else None

    return percent(_median(cells, of))
