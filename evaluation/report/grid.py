# pyright: reportUnknownMemberType=false
# matplotlib leaves most keyword arguments untyped.
"""The verdict matrix as one figure, for documents that cannot colour their tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from evaluation.report.standing import Standing

if TYPE_CHECKING:
    from evaluation.report.cells import MergedCell
    from evaluation.report.matrices import Matrix

#: standing -> fill, ink; the same as on the page.
COLOURS = {
    Standing.BROKEN: ("#c62f1c", "#ffffff"),
    Standing.UNCONVICTED: ("#ffffff", "#8a1078"),
    Standing.UNKNOWN: ("#b5179e", "#ffffff"),
    Standing.ANOMALY: ("#f3c04b", "#2b1d00"),
    Standing.ERROR: ("#1d2430", "#ffffff"),
    Standing.OK: ("#bfe5d8", "#044535"),
    Standing.NOT_CHECKED: ("#ffffff", "#5d6878"),
    Standing.ABSENT: ("#ffffff", "#8a94a3"),
    Standing.INAPPLICABLE: ("#f1f3f5", "#b9c0c9"),
}
_HATCH = {Standing.NOT_CHECKED: "////", Standing.UNCONVICTED: "...."}


def in_cell(cell: MergedCell) -> str:
    """The one number that says most: what was lost, or else what was stale."""
    if cell.standing not in (Standing.BROKEN, Standing.ANOMALY):
        # A read level that promises no more may be stale in a run that is ok: no number to worry about.
        return ""
    for word, count in (("lost", cell.count("lost")), ("stale", cell.stale)):
        if count:
            return f"{count:,} {word}"
    return ", ".join(f"{count:,} {kind}" for kind, count in list(cell.own_errors.items())[:1])


def draw(matrix: Matrix) -> Figure | None:
    if not matrix.systems or not matrix.faults:
        return None
    rows, columns = len(matrix.faults), len(matrix.systems)
    # A cell must hold its mark and a number with its word.
    figure = Figure(figsize=(max(9.2, 2.1 + 0.8 * columns), 1.35 + 0.31 * rows), layout="constrained")
    axes = figure.subplots()
    seen: set[Standing] = set()
    for row, fault in enumerate(matrix.faults):
        for column, system in enumerate(matrix.systems):
            cell = matrix.cell(system, fault)
            seen.add(cell.standing)
            fill, ink = COLOURS[cell.standing]
            axes.add_patch(
                Rectangle(
                    (column + 0.02, row + 0.04), 0.96, 0.92, facecolor=fill, hatch=_HATCH.get(cell.standing),
                    edgecolor="#c9d0d8", linewidth=0.5 if fill == "#ffffff" else 0,
                )
            )  # fmt: skip
            text = in_cell(cell)
            axes.text(column + 0.1, row + 0.52, cell.standing.symbol, va="center", fontsize=8, color=ink)
            axes.text(column + 0.94, row + 0.52, text, va="center", ha="right", fontsize=6.6, color=ink)
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)
    axes.set_yticks([row + 0.5 for row in range(rows)], matrix.faults)
    axes.set_xticks(
        [column + 0.5 for column in range(columns)],
        matrix.systems,
        rotation=30,
        ha="left",
        rotation_mode="anchor",
    )
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.legend(
        handles=[
            Patch(
                facecolor=COLOURS[standing][0], hatch=_HATCH.get(standing), edgecolor="#8a94a3",
                linewidth=0.4,
                label=f"{standing.symbol} {standing.value}",
            )
            for standing in Standing
            if standing in seen
        ],
        loc="outside lower left", ncols=4, handlelength=1.2,
    )  # fmt: skip
    return figure
