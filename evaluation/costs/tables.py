"""The result of a cost measurement as tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from evaluation.costs import figures
from evaluation.costs.loads import TITLES

if TYPE_CHECKING:
    from rich.console import Console


def show(result: dict[str, Any], console: Console) -> None:
    """`result`: of the form `evaluation.costs.cost` describes."""
    console.print(_speed(result))
    console.print(_takes(result))


def _speed(result: dict[str, Any]) -> Table:
    speed = Table(title=f"per second (and ratio to {figures.REFERENCE}), p50 / p99 ms")
    speed.add_column("load")
    speed.add_column("system")
    for heading in ("per second", "ratio", "p50", "p99", "errors"):
        speed.add_column(heading, justify="right")
    for name in TITLES:
        for row in result["systems"]:
            for one in row.get("loads", []):
                if one["load"] == name:
                    label = row["system"] + ("" if one["mode"] == "default" else f", {one['mode']}")
                    ratio = "" if one["ratio"] is None else f"{one['ratio']:.2f}"
                    figures_ = (
                        f"{one['per_second']:.0f}",
                        ratio,
                        f"{one['p50_ms']:.2f}",
                        f"{one['p99_ms']:.2f}",
                    )
                    speed.add_row(name, label, *figures_, str(sum(one["errors"].values()) or ""))
    return speed


def _takes(result: dict[str, Any]) -> Table:
    takes = Table(title="what it takes")
    takes.add_column("system")
    for heading in ("start s", "fill/s", "recall@10", "memory MiB", "disk MiB", "processes"):
        takes.add_column(heading, justify="right")
    for row in result["systems"]:
        if "start_s" in row:
            cells = ("start_s", "fill_per_second", "recall_at_10", "memory_mib_total", "disk_mib_total")
            takes.add_row(
                row["system"], *(str(row.get(cell, "")) for cell in cells), str(row["processes_total"])
            )
        else:
            takes.add_row(row["system"], row["error"][:60])
    return takes
