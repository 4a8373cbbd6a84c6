"""What the commands of the evaluation do: run the matrix, judge saved runs again, write the report.

Exit codes: 0 all as expected; 1 a promise is broken, or a weak system was not convicted; 2 an error or
something undecided. `evaluation.cli.commands` imports this when one of them is called.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from evaluation import stopping
from evaluation.cli.watcher import TerminalWatcher
from evaluation.cli.words import counts, explain, table
from evaluation.run import campaign, matrix
from evaluation.traffic.mix import NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from evaluation.run.matrix import Cell, Conclusion


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
    watcher = TerminalWatcher(console)
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
