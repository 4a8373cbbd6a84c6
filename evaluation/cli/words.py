"""How results look on a terminal: a table of all, and the reasons of those that are not as expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from evaluation.run import campaign, matrix
from evaluation.run.matrix import Result

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rich.console import Console

    from evaluation.run.matrix import Cell, Conclusion

STYLE = {
    Result.BROKEN: "bold red",
    Result.UNCONVICTED: "red",
    Result.ERROR: "yellow",
    Result.UNKNOWN: "yellow",
    Result.CONVICTED: "cyan",
    Result.ANOMALY: "cyan",
    Result.OK: "green",
}


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
    return Text(f"{result.value} ({runs})" if runs > 1 else result.value, style=STYLE[result])


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
