"""What a terminal shows while runs are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from evaluation.cli.words import STYLE
from evaluation.run import campaign

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from evaluation.run.matrix import Cell, Conclusion


class TerminalWatcher(campaign.Watcher):
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
            (conclusion.result.value, STYLE[conclusion.result]),
            ("  " + "; ".join(conclusion.reasons)[:120] if conclusion.reasons else "", "dim"),
        )
        self._console.print(line)

    def excludes(self, fault: str, reasons: Mapping[str, str]) -> None:
        for reason in dict.fromkeys(reasons.values()):
            names = ", ".join(name for name, why in reasons.items() if why == reason)
            self._console.print(f"{fault} does not apply to {names}: {reason}", markup=False)

    def leaves_out(self, cells: Sequence[Cell]) -> None:
        self.left_out = list(cells)
