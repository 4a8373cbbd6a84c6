# pyright: reportUnknownMemberType=false
# matplotlib leaves most keyword arguments untyped.
"""The compactor's section: tables of compactor.json, and a figure of who held the lock when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from evaluation.report import style
from evaluation.report.costs import Table
from evaluation.report.numbers import MISSING, duration, size, whole

if TYPE_CHECKING:
    from collections.abc import Sequence

#: variant -> what it does before it moves the pointer.
VARIANTS = {
    "unfenced": "lock, copy, apply, upload; the pointer is overwritten",
    "checked": "the same, and it looks once more whether it still holds the lock before it overwrites",
    "fenced": "the pointer moves only if it is as it was read (conditional PUT), with the lock's number",
}


def tables(raw: dict[str, Any]) -> list[Table]:
    """Of compactor.json: what each variant loses, and what a change costs if that was measured."""
    if not raw:
        return []
    found = [_losses(raw.get("summary", ()))]
    if raw.get("throughput"):
        found.append(_costs(raw["throughput"]))
    return found


def _losses(rows: Sequence[dict[str, Any]]) -> Table:
    columns = (
        "variant", "fault", "runs", "with loss", "acknowledged", "lost", "must show", "as it must", "errors",
    )  # fmt: skip
    return Table(
        "What it loses",
        columns,
        [
            (
                str(row["variant"]),
                str(row["fault"]),
                whole(row["runs"]),
                whole(row["runs_with_loss"]) if row["runs"] else MISSING,
                whole(row["acknowledged"]) if row["runs"] else MISSING,
                whole(row["lost"]) if row["runs"] else MISSING,
                str(row["expected"]),
                ("yes" if row["as_expected"] else "NO") if row["runs"] else MISSING,
                whole(row["errors"]),
            )
            for row in rows
        ],
        "; ".join(f"{name}: {what}" for name, what in VARIANTS.items()) + ".",
        frozenset({2, 3, 4, 5, 8}),
    )


def _costs(rows: Sequence[dict[str, Any]]) -> Table:
    return Table(
        "What a change costs: one worker, no fault",
        ("documents before", "changes a cycle", "changes/s", "cycle p50", "down a change", "up a change"),
        [
            (
                whole(row["documents_before"]),
                whole(row["batch"]),
                f"{row['changes_per_second']:.1f}",
                duration(row["cycle_ms_p50"]),
                size(row["bytes_down_per_change"]),
                size(row["bytes_up_per_change"]),
            )
            for row in rows
        ],
        "Every cycle moves the whole snapshot down and up; the changes in it share that price.",
        frozenset(range(6)),
    )


@dataclass(frozen=True)
class Holding:
    """One holding of the lock, in seconds of the run."""

    worker: str
    begin_s: float
    expires_s: float
    end_s: float
    end: str
    paused_s: float | None
    awake_s: float | None


def holdings(run: dict[str, Any]) -> list[Holding]:
    def seconds(value: float | None) -> float | None:
        return None if value is None else value / 1e9

    return [
        Holding(
            str(one["worker"]),
            one["locked_ns"] / 1e9,
            one["expires_ns"] / 1e9,
            (one["ended_ns"] if one["ended_ns"] is not None else one["expires_ns"]) / 1e9,
            str(one["end"]),
            seconds(one.get("paused_ns")),
            seconds(one.get("awake_ns")),
        )
        for one in run.get("holdings", ())
    ]


def telling(raw: dict[str, Any]) -> list[dict[str, Any]]:
    """One run a variant with a paused holder, those that lost something first."""
    chosen: dict[str, dict[str, Any]] = {}
    for run in sorted(raw.get("runs", ()), key=lambda run: -int(run.get("lost") or 0)):
        if not run.get("error") and any(one.paused_s is not None for one in holdings(run)):
            chosen.setdefault(str(run["variant"]), run)
    return [chosen[name] for name in (*VARIANTS, *sorted(chosen.keys() - VARIANTS)) if name in chosen]


def draw(runs: Sequence[dict[str, Any]]) -> Figure | None:
    """Who held the lock when: a row a worker, a panel a variant."""
    if not runs:
        return None
    figure = Figure(figsize=(9.2, 0.55 + 1.05 * len(runs)), layout="constrained")
    for axes, run in zip(figure.subplots(len(runs), 1, squeeze=False)[:, 0], runs, strict=True):
        found = holdings(run)
        workers = sorted({one.worker for one in found})
        for one in found:
            row = workers.index(one.worker)
            _bar(axes, row, one.begin_s, min(one.end_s, one.expires_s), style.READS)
            _bar(axes, row, one.expires_s, one.end_s, style.REFUSED)
            if one.paused_s is not None:
                awake_s = one.end_s if one.awake_s is None else one.awake_s
                axes.plot([one.paused_s, awake_s], [row, row], color=style.INK, linewidth=2.2)
            axes.plot([one.end_s] * 2, [row - 0.3, row + 0.3], color=style.INK, linewidth=1.2)
        axes.set_yticks(range(len(workers)), workers)
        axes.set_ylim(len(workers) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        lost, acknowledged = int(run.get("lost") or 0), int(run.get("acknowledged") or 0)
        said = (
            f"{lost} of {acknowledged} acknowledged changes lost" if lost else f"none of {acknowledged} lost"
        )
        axes.set_title(f"{run['variant']}: {said} (seed {run['seed']})")
        axes.set_xlim(min(one.begin_s for one in found) - 0.2, max(one.end_s for one in found) + 0.3)
        axes.grid(visible=True, axis="x")
        axes.set_axisbelow(True)
    figure.supxlabel("seconds since the run began", fontsize=8.5)
    figure.legend(
        handles=[
            Patch(color=style.READS, label="holds the lock"),
            Patch(color=style.REFUSED, label="works on after its lock expired"),
            Patch(color=style.INK, label="paused; a tick: it ended its cycle"),
        ],
        loc="outside upper left",
        ncols=3,
        handlelength=1.1,
    )
    return figure


def _bar(axes: Any, row: int, begin_s: float, end_s: float, colour: str) -> None:
    if end_s > begin_s:
        axes.barh(row, end_s - begin_s, left=begin_s, height=0.5, color=colour, linewidth=0)
