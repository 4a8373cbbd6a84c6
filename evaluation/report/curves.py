# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# matplotlib leaves most keyword arguments untyped.
"""The staleness figure: how likely a read misses a write that was acknowledged t before it began."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from evaluation.report import style

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from matplotlib.axes import Axes

    from evaluation.report.measures import Curve, Measures


@dataclass(frozen=True)
class Line:
    """One line of the figure: the runs of one system at one read level, added up."""

    label: str
    points: tuple[tuple[float, int, int, int, int], ...]
    """As `Curve.points`."""
    reads: int
    stale: int


def merged(label: str, curves: Iterable[Curve], reads: int, stale: int) -> Line:
    """Counts are added point by point, so that a run with many reads weighs more than one with few."""
    counted: dict[float, list[int]] = {}
    for curve in curves:
        for at_ms, *counts in curve.points:
            before = counted.setdefault(at_ms, [0, 0, 0, 0])
            for number, count in enumerate(counts):
                before[number] += count
    points = tuple((at, a, b, c, d) for at in sorted(counted) for a, b, c, d in [counted[at]])
    return Line(label, points, reads, stale)


#: Where t = 0 stands on a logarithmic axis.
ZERO_MS = 0.5


def draw(lines: Sequence[Line]) -> Figure | None:
    """Lines that are zero everywhere are named in the legend: drawn, they would hide one another."""
    lines = [line for line in lines if line.reads]
    stale = [line for line in lines if any(missed for _, _, missed, _, _ in line.points)]
    if not lines:
        return None
    figure = Figure(figsize=(9.2, 3.3 + 0.2 * ((len(lines) + 1) // 2)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, sharex=True)
    _panel(left, stale, 1, "began t after the acknowledgement (up to the next mark)")
    _panel(right, stale, 3, "began t or more after the acknowledgement")
    left.set_ylabel("share of reads that show something older")
    for line in lines:
        if line not in stale:
            left.plot([], [], " ", label=f"{line.label}: none of {line.reads:,} reads")
    figure.supxlabel("t, between a write's acknowledgement and the begin of a read of its key", fontsize=8.5)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2, handlelength=2.8)
    return figure


#: With more lines than colours: the same colours again, with other marks.
_MARKS = "os^D"


def _panel(axes: Axes, lines: Sequence[Line], column: int, title: str) -> None:
    lowest, latest = 1e-2, 1000.0
    for number, line in enumerate(lines):
        shown = [
            (max(point[0], ZERO_MS), point[column + 1] / point[column])
            for point in line.points
            if point[column] and point[column + 1]
        ]
        if not shown:
            continue
        again = number // len(style.LINES)
        lowest = min(lowest, *(share for _, share in shown))
        latest = max(latest, *(at for at, _ in shown))
        axes.plot(
            [at for at, _ in shown], [share for _, share in shown],
            linestyle=style.DASHES[number % len(style.DASHES)], linewidth=1.6,
            marker=_MARKS[again % len(_MARKS)], markersize=3 + again,
            color=style.LINES[number % len(style.LINES)],
            label=f"{line.label}: {line.stale:,} of {line.reads:,} reads stale",
        )  # fmt: skip
    if not lines:
        axes.text(
            0.5, 0.5, "no read missed an acknowledged write", transform=axes.transAxes, ha="center",
            color=style.MUTED,
        )  # fmt: skip
    axes.set_title(title, fontsize=8.5, fontweight="normal")
    axes.set_xscale("log")
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 10 ** np.floor(np.log10(lowest))), max(1.4, high))
    axes.set_xlim(ZERO_MS * 0.8, max(axes.get_xlim()[1], latest * 1.5))
    axes.set_xticks([ZERO_MS, 1, 10, 100, 1_000, 10_000], ["0", "1 ms", "10 ms", "100 ms", "1 s", "10 s"])
    axes.yaxis.set_major_formatter(FuncFormatter(_share))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(visible=True, which="major")


def _share(value: float, _: int | None) -> str:
    return f"{value * 100:g} %"


def lines_of(found: Mapping[tuple[str, str], Sequence[Measures]]) -> list[Line]:
    """(system, level) -> measures of its runs; the level is named where a system has several."""
    levels: dict[str, set[str]] = {}
    for system, level in found:
        levels.setdefault(system, set()).add(level)
    return [
        merged(
            system if len(levels[system]) == 1 else f"{system}, {level}",
            [one.curves[level] for one in several],
            sum(one.reads.get(level, 0) for one in several),
            sum(one.stale.get(level, 0) for one in several),
        )
        for (system, level), several in found.items()
    ]
