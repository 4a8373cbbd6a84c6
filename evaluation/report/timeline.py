# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# matplotlib leaves most keyword arguments untyped.
"""The figure of one run: what each entry acknowledged and refused over time, with faults and elections."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from evaluation.checking.split_brain import reigns
from evaluation.history import Phase
from evaluation.report import style
from evaluation.report.bins import binned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from evaluation.checking.split_brain import Reign
    from evaluation.history import Operation
    from evaluation.record import RunRecord
    from evaluation.report.bins import Bins

#: Windows of a figure, and up to which length of a run they can be told apart.
WINDOWS_NS = ((100_000_000, 30e9), (250_000_000, 75e9), (500_000_000, float("inf")))
#: Between an axis and the words that name it stand the numbers of its ticks.
LABELS_IN = 0.66
_SIDES = {"majority": 0, "all": 1, "minority": 2}


def draw(record: RunRecord, operations: Sequence[Operation]) -> Figure | None:
    """None when there is nothing to draw. The caller is inside `style.styled()`."""
    if not operations:
        return None
    end_ns = max(record.end_ns, record.quiet_ns, max(one.returned_ns or one.invoked_ns for one in operations))
    # Final reads are many at once: they would set the scale for all that matters.
    traffic = [one for one in operations if one.phase is not Phase.FINAL]
    if not traffic:
        return None
    traffic_end_ns = max(one.invoked_ns for one in traffic)
    # Settling may take longer than all the rest, and shows nothing.
    shown_ns = min(end_ns, int(traffic_end_ns * 1.05 + 1e9))
    window_ns = next(window for window, most in WINDOWS_NS if shown_ns <= most)
    counted = binned(traffic, window_ns, shown_ns)
    sides = {str(entry.get("name")): str(entry.get("side", "all")) for entry in record.entries}
    entries = sorted(counted, key=lambda name: (name != "lb", _SIDES.get(sides.get(name, "all"), 1), name))
    found = reigns(record.events)
    rows = max(1, len({reign.member for reign in found}))
    heights = [0.12 + 0.33 * rows, *[1.0] * len(entries), 0.9]
    labels = [*entries, *(reign.member for reign in found), *sides.values(), "slowest"]
    figure, axes = _panels(heights, max(len(label) for label in labels))
    # Cutting a dozen links and probing each cut takes time; until then the fault is not the one named.
    bites_ns = record.measured.get("fault_applied_ns") or record.fault_begin_ns
    fault_end_ns = record.fault_end_ns or (traffic_end_ns if record.fault_begin_ns else 0)
    for one in axes:
        style.shade(one, record.fault_begin_ns / 1e9, bites_ns / 1e9, style.STRIKING)
        style.shade(one, bites_ns / 1e9, fault_end_ns / 1e9, style.FAULT)
        if record.quiet_ns:
            style.shade(one, traffic_end_ns / 1e9, end_ns / 1e9, style.FINAL)
    _reigns(axes[0], found, shown_ns)
    top = max(max(_added(bins.writes, bins.reads), default=1) for bins in counted.values()) or 1
    bottom = max(max(_added(bins.refused, bins.unknown), default=0) for bins in counted.values())
    for one, name in zip(axes[1:-1], entries, strict=True):
        _entry(one, counted[name], window_ns, top, bottom)
        side = sides.get(name, "all")
        one.set_ylabel(name + (f"\n({side})" if side != "all" else ""), rotation=0, ha="right", va="center")
    _latency(axes[-1], counted, window_ns)
    axes[-1].set_xlabel(f"seconds since the run began; requests in each {window_ns / 1e6:.0f} ms")
    axes[-1].set_xlim(0, shown_ns / 1e9)
    figure.legend(
        handles=[
            Patch(color=style.WRITES, label="writes acknowledged"),
            Patch(color=style.READS, label="reads answered"),
            Patch(color=style.REFUSED, label="refused"),
            Patch(color=style.UNKNOWN, label="outcome unknown"),
            Patch(color=style.LEADER, label="leads"),
            Patch(color=style.STRIKING, label="fault strikes"),
            Patch(color=style.FAULT, label="lasts"),
            Patch(color=style.FINAL, label="no traffic"),
        ],
        loc="upper left",
        borderaxespad=0.2,
        ncols=8,
        handlelength=1.1,
        columnspacing=1.2,
    )
    return figure


def _panels(heights: list[float], characters: int) -> tuple[Figure, list[Axes]]:
    """One above the other, placed by plain arithmetic: a layout that measures texts takes longer than all
    the drawing, and there are hundreds of timelines."""
    top, bottom, gap, left = 0.33, 0.42, 0.08, LABELS_IN + 0.1 + 0.074 * characters
    tall = [0.58 * height for height in heights]
    height = top + bottom + sum(tall) + gap * (len(tall) - 1)
    width = 9.2
    figure = Figure(figsize=(width, height))
    axes: list[Axes] = []
    at = height - top
    for each in tall:
        at -= each
        place = (left / width, at / height, (width - left - 0.12) / width, each / height)
        axes.append(figure.add_axes(place, sharex=axes[0] if axes else None))
        at -= gap
    for one in axes[:-1]:
        one.tick_params(axis="x", labelbottom=False)
    for one in axes[1:]:
        one.yaxis.set_label_coords(-LABELS_IN / (width - left - 0.12), 0.5)
    return figure, axes


def _added(one: list[int], other: list[int]) -> list[int]:
    return [a + b for a, b in zip(one, other, strict=True)]


def _entry(axes: Axes, bins: Bins, window_ns: int, top: int, bottom: int) -> None:
    """Acknowledged upwards, not acknowledged downwards; one scale for all entries."""
    seconds = np.arange(len(bins.writes) + 1) * window_ns / 1e9
    writes, both = np.array(bins.writes), np.array(_added(bins.writes, bins.reads))
    refused, all_bad = -np.array(bins.refused), -np.array(_added(bins.refused, bins.unknown))
    for low, high, colour in (
        (np.zeros_like(writes), writes, style.WRITES),
        (writes, both, style.READS),
        (refused, np.zeros_like(refused), style.REFUSED),
        (all_bad, refused, style.UNKNOWN),
    ):
        if np.any(low != high):
            axes.stairs(high, seconds, baseline=low, fill=True, color=colour, linewidth=0)
    axes.axhline(0, color=style.MUTED, linewidth=0.6)
    axes.set_ylim(-max(bottom, top * 0.18) * 1.08, top * 1.08)
    axes.set_yticks([-bottom, 0, top] if bottom >= top * 0.35 else [0, top])
    axes.set_yticklabels([str(abs(int(tick))) for tick in axes.get_yticks()])
    axes.tick_params(axis="x", length=0)
    axes.spines["bottom"].set_visible(False)


def _latency(axes: Axes, counted: dict[str, Bins], window_ns: int) -> None:
    slowest = np.max(np.array([bins.slowest_ms for bins in counted.values()]), axis=0)
    seconds = (np.arange(len(slowest)) + 0.5) * window_ns / 1e9
    there = slowest > 0
    axes.plot(seconds[there], slowest[there], ".", markersize=2.6, color=style.INK)
    axes.set_yscale("log")
    low, high = (1.0, 1000.0) if not there.any() else (slowest[there].min(), slowest[there].max())
    low, high = 10 ** np.floor(np.log10(low)), 10 ** np.ceil(np.log10(high * 1.01))
    axes.set_ylim(low / 1.3, high * 1.3)
    ticks = 10.0 ** np.arange(round(np.log10(low)), round(np.log10(high)) + 1)
    axes.set_yticks(ticks, [_milliseconds(tick) for tick in ticks], minor=False)
    axes.minorticks_off()
    axes.set_ylabel("slowest\nanswer", rotation=0, ha="right", va="center")
    axes.grid(visible=True, axis="y")


def _milliseconds(value: float) -> str:
    return f"{value / 1000:g} s" if value >= 1000 else f"{value:g} ms"


def _reigns(axes: Axes, found: Sequence[Reign], end_ns: int) -> None:
    """Who said of itself that it led, a row a member: bars one above the other are two leaders at once."""
    members = sorted({reign.member for reign in found})
    axes.set_ylim(len(members) or 1, 0)
    axes.set_yticks([row + 0.5 for row in range(len(members))], members)
    axes.spines[["bottom", "left"]].set_visible(False)
    axes.tick_params(axis="both", length=0)
    if not found:
        axes.text(0.0, 0.5, " no leader known", va="center", fontsize=8, color=style.MUTED)
        return
    for reign in found:
        begin_s, end_s = reign.begin_ns / 1e9, min(reign.end_ns, end_ns) / 1e9
        row = members.index(reign.member)
        axes.barh(row + 0.5, end_s - begin_s, left=begin_s, height=0.62, color=style.LEADER, linewidth=0)
        # Inside its bar, where that is long enough for the words.
        if reign.term is not None and (end_s - begin_s) * 1e9 > end_ns * 0.06:
            axes.text(
                begin_s + end_ns / 1e9 * 0.005, row + 0.52, f"term {reign.term}", va="center", fontsize=7,
                color="white",
            )  # fmt: skip
