"""The commands of the evaluation: run the matrix, judge saved runs again, write the report.

Exit codes: 0 all as expected; 1 a promise is broken, or a weak system was not convicted; 2 an error or
something undecided. They are hooked into `chroma-cluster` by `cluster.cli.app`, which imports this lazily.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from evaluation import stopping
from evaluation.run import campaign, matrix
from evaluation.run.matrix import Cell, Conclusion, Result
from evaluation.traffic.mix import NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_STYLE = {
    Result.BROKEN: "bold red",
    Result.UNCONVICTED: "red",
    Result.ERROR: "yellow",
    Result.UNKNOWN: "yellow",
    Result.CONVICTED: "cyan",
    Result.ANOMALY: "cyan",
    Result.OK: "green",
}


class Wrong(typer.BadParameter):
    """What was asked for makes no sense; the words are for people."""


def evaluate(
    *,
    systems: str | None,
    faults: str | None,
    workloads: str | None,
    minutes: float | None,
    seed: int,
    seeds: int,
    out: Path,
    quick: bool,
) -> int:
    """Run what is asked for and not yet in `out`. Raises `Wrong`."""
    from evaluation.faulting.catalogue import FAULTS
    from evaluation.systems.catalogue import SYSTEMS

    outline = campaign.Outline(
        systems=chosen("system", systems, tuple(SYSTEMS), matrix.default_systems(SYSTEMS)),
        faults=chosen("fault", faults, tuple(FAULTS), tuple(FAULTS)),
        seeds=tuple(range(seed, seed + seeds)),
        workloads=chosen("workload", workloads, NAMES, NAMES),
        minutes=minutes,
        essence_only=quick,
    )
    console = _console()
    watcher = _Watcher(console)
    began = time.monotonic()
    with watcher.live:
        conclusions = stopping.run(campaign.conduct(outline, out, watcher))
    if conclusions:
        console.print(table(conclusions))
    explain(conclusions, out, console)
    took = time.monotonic() - began
    console.print(f"{counts(conclusions)} in {took / 60:.1f} minutes; saved in {out}", markup=False)
    for cell in watcher.left_out[:1]:
        console.print(
            f"{len(watcher.left_out)} runs did not fit ({cell.path} and later ones): the same command goes "
            "on where this one ended.",
            markup=False,
        )
    return matrix.exit_code(campaign.results_of(conclusions))


def judge(folder: Path) -> int:
    """Judge all saved runs again. Raises `Wrong`."""
    console = _console()
    conclusions: dict[Cell, Conclusion] = {}
    for cell, run in campaign.saved(folder):
        judgement = campaign.judge(run)
        conclusions[cell] = matrix.conclude(campaign.RunRecord.load(run), judgement)
    if not conclusions:
        raise Wrong(f"There are no saved runs in {folder} (looked for SYSTEM/FAULT/SEED/run.json below it).")
    console.print(table(conclusions))
    explain(conclusions, folder, console)
    console.print(counts(conclusions))
    return matrix.exit_code(campaign.results_of(conclusions))


def report(folder: Path, out: Path) -> int:
    """Write the report of all saved runs to `out`. Raises `Wrong`."""
    from evaluation.report import build

    if not any(campaign.saved(folder)):
        raise Wrong(f"There are no saved runs in {folder} (looked for SYSTEM/FAULT/SEED/run.json below it).")
    build(folder, out)
    _console().print(f"The report is in {out}.", markup=False)
    return 0


# ---------------------------------------------------------------------- words


def _console() -> Console:
    # Into a pipe or a file: wide enough for the table, whatever the terminal.
    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)


def chosen(what: str, asked: str | None, known: Sequence[str], default: Sequence[str]) -> tuple[str, ...]:
    """The names in a list with commas. Raises `Wrong` for one that is not known."""
    if asked is None:
        return tuple(default)
    names = tuple(name.strip() for name in asked.split(",") if name.strip())
    strange = [name for name in names if name not in known]
    if strange or not names:
        raise Wrong(f"No such {what}: {', '.join(strange) or 'none given'}. Known: {', '.join(known)}.")
    return names


def table(conclusions: Mapping[Cell, Conclusion]) -> Table:
    """Faults down, systems across; the worst of all seeds."""
    systems = list(dict.fromkeys(cell.system for cell in conclusions))
    rows = Table(title="what each run means (of several seeds the worst)")
    # Where it is narrow, names of systems break; those of faults never do.
    rows.add_column("fault", no_wrap=True, min_width=max(len(cell.fault) for cell in conclusions))
    for system in systems:
        rows.add_column(system, overflow="fold")
    for fault in dict.fromkeys(cell.fault for cell in conclusions):
        row: list[Text] = [Text(fault)]
        for system in systems:
            results = [
                conclusion.result
                for cell, conclusion in conclusions.items()
                if (cell.system, cell.fault) == (system, fault)
            ]
            row.append(_cell(matrix.worst(results), len(results)) if results else Text("·", style="dim"))
        rows.add_row(*row)
    return rows


def _cell(result: Result, runs: int) -> Text:
    return Text(f"{result.value} ({runs})" if runs > 1 else result.value, style=_STYLE[result])


def explain(conclusions: Mapping[Cell, Conclusion], out: Path, console: Console) -> None:
    """Each run that is not as expected: why, its seed, and what repeats it."""
    for cell, conclusion in conclusions.items():
        if matrix.EXIT[conclusion.result] == 0:
            continue
        console.print(
            Text(f"{cell.system} under {cell.fault}, seed {cell.seed}: {conclusion.result.value}", "bold")
        )
        for reason in conclusion.reasons:
            console.print(f"  {reason}", markup=False)
        record = campaign.RunRecord.load(out / cell.path)
        console.print(f"  history: {out / cell.path}\n  again:   {record.command} --out DIR", markup=False)


def counts(conclusions: Mapping[Cell, Conclusion]) -> str:
    found = matrix.summary(conclusions)
    return f"{len(conclusions)} runs: " + ", ".join(f"{number} {name}" for name, number in found.items())


class _Watcher(campaign.Watcher):
    """A bar over all runs, what the current one does, and a line for each that is over."""

    def __init__(self, console: Console) -> None:
        self.left_out: list[Cell] = []
        self._console = console
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._bar.add_task("planning", total=None)
        self._now = Text("")
        self.live = Live(Group(self._now, self._bar), console=console, refresh_per_second=4)

    def planned(self, cells: Sequence[Cell], done: int) -> None:
        self._bar.update(self._task, description="runs", total=len(cells), completed=done)
        if done:
            self._console.print(f"[dim]{done} of {len(cells)} runs are there already[/dim]")

    def does(self, cell: Cell, what: str) -> None:
        self._now.plain = f"{cell.system} under {cell.fault}, seed {cell.seed}: {what}"

    def ends(self, cell: Cell, conclusion: Conclusion, took_s: float) -> None:
        self._now.plain = ""
        self._bar.advance(self._task)
        line = Text.assemble(
            f"{cell.system:<24} {cell.fault:<24} seed {cell.seed:<4} {took_s:5.0f} s  ",
            (conclusion.result.value, _STYLE[conclusion.result]),
            ("  " + "; ".join(conclusion.reasons)[:120] if conclusion.reasons else "", "dim"),
        )
        self._console.print(line)

    def excludes(self, fault: str, reasons: Mapping[str, str]) -> None:
        for reason in dict.fromkeys(reasons.values()):
            names = ", ".join(name for name, why in reasons.items() if why == reason)
            self._console.print(f"{fault} does not apply to {names}: {reason}", markup=False)

    def leaves_out(self, cells: Sequence[Cell]) -> None:
        self.left_out = list(cells)
