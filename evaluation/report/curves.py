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
from evaluation.report.numbers import duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from matplotlib.axes import Axes

    from evaluation.report.measures import Curve


@dataclass(frozen=True)
class Line:
    """One line of the figure: the runs of one system at one read level, added up."""

    label: str
    points: tuple[tuple[float, int, int], ...]

    @property
    def reads(self) -> int:
        return max((reads for _, _, reads in self.points), default=0)

    @property
    def missed(self) -> int:
        return max((missed for _, missed, _ in self.points), default=0)


def merged(label: str, curves: Iterable[Curve]) -> Line:
    """Counts are added point by point, so that a run with many reads weighs more than one with few."""
    counted: dict[float, tuple[int, int]] = {}
    for curve in curves:
        for at_ms, missed, reads in curve.points:
            before = counted.get(at_ms, (0, 0))
            counted[at_ms] = (before[0] + missed, before[1] + reads)
    return Line(label, tuple((at, *counted[at]) for at in sorted(counted)))


def draw(lines: Sequence[Line]) -> Figure | None:
    """Lines that are zero everywhere are named beside the axes: drawn, they would hide one another."""
    stale = [line for line in lines if line.missed]
    clean = [line for line in lines if line.reads and not line.missed]
    if not stale and not clean:
        return None
    figure = Figure(figsize=(9.2, 3.6), layout="constrained")
    axes = figure.subplots()
    floor = 1e-4
    ends = [0.1, 10.0]
    for number, line in enumerate(stale):
        times = np.array([max(at, 0.1) for at, _, reads in line.points if reads])
        missed = np.array([missed / reads for _, missed, reads in line.points if reads])
        shown = np.where(missed > 0, missed, np.nan)
        floor = min(floor, 10 ** np.floor(np.log10(np.nanmin(shown))))
        ends += [float(times[~np.isnan(shown)].max())]
        axes.plot(
            times, shown, linestyle=style.DASHES[number % len(style.DASHES)], linewidth=1.7,
            marker="o", markersize=2.8, color=style.LINES[number % len(style.LINES)], 
            label=f"{line.label} ({line.reads:,} reads)",
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(floor, 1.3)
    axes.set_xlim(0.09, max(ends) * 1.6)
    axes.xaxis.set_major_formatter(FuncFormatter(_time))
    axes.yaxis.set_major_formatter(FuncFormatter(_share))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(visible=True, which="major")
    axes.set_xlabel("t: how long before the read began the write had been acknowledged (at least)")
    axes.set_ylabel("reads that missed it")
    _legend(figure, axes, bool(stale), clean)
    return figure


def _time(value_ms: float, _: int | None) -> str:
    return duration(value_ms)


def _share(value: float, _: int | None) -> str:
    return f"{value * 100:g} %"


def _legend(figure: Figure, axes: Axes, any_stale: bool, clean: Sequence[Line]) -> None:
    for line in clean:
        axes.plot([], [], linestyle="none", label=f"{line.label}: none of {line.reads:,} reads")
    if not any_stale:
        axes.text(0.5, 0.5, "no read missed an acknowledged write", transform=axes.transAxes, ha="center")
    figure.legend(loc="outside right upper", handlelength=2.6)


def lines_of(curves: Mapping[tuple[str, str], Sequence[Curve]]) -> list[Line]:
    """(system, level) -> curves of its runs; the level is named where a system has several."""
    levels: dict[str, set[str]] = {}
    for system, level in curves:
        levels.setdefault(system, set()).add(level)
    return [
        merged(system if len(levels[system]) == 1 else f"{system}, {level}", found)
        for (system, level), found in curves.items()
    ]
