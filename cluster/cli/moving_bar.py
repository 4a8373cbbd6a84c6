"""How far a move is: one bar for moving, one for verifying, with the rate and the time that is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Task

_WIDTH: Final = 32


class _Rate(ProgressColumn):
    """Records a second, lately."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s")


class Bars:
    """What `cluster.moving` tells how far it is (its `Watch`); nothing is printed unless `shown`."""

    def __init__(self, *, shown: bool) -> None:
        self._progress = Progress(
            TextColumn("{task.description:>9}"),
            BarColumn(bar_width=_WIDTH),
            MofNCompleteColumn(),
            _Rate(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not shown,
        )
        self._moved = self._progress.add_task("moving", total=None)
        self._verified = self._progress.add_task("verifying", total=None)

    def begin(self, total: int) -> None:
        """So many records are to be moved, and then verified."""
        for task in (self._moved, self._verified):
            self._progress.update(task, total=total)

    def moved(self, count: int) -> None:
        """So many more are in the target."""
        self._progress.advance(self._moved, count)

    def verified(self, count: int) -> None:
        """So many more were compared."""
        self._progress.advance(self._verified, count)

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()
