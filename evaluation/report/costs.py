"""Tables of cost.json (its form: `evaluation.cost`) for the page and the documents. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from evaluation.report.lanes import shorten
from evaluation.report.numbers import MISSING, duration, ratio, significant, whole

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Table:
    """Any table whose first column names the row."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    numeric: frozenset[int] = field(default_factory=frozenset[int])
    """Columns that are aligned to the right."""


def cost_tables(raw: dict[str, Any]) -> list[Table]:
    """Speed, weight, and what an operator has to do; nothing of an empty document."""
    systems: list[dict[str, Any]] = raw.get("systems") or []
    if not systems:
        return []
    found = [_speed(raw, systems), _weight(raw, systems)]
    for name, title in (("failover", "To fail over"), ("backup", "To back up")):
        rows = [_operation(one["system"], operation(one, name)) for one in systems]
        if any(rows):
            found.append(
                Table(
                    title,
                    (
                        "system",
                        "commands a person types",
                        "clients notice",
                        "lost",
                        "also needed",
                        "how found out",
                    ),
                    [row for row in rows if row],
                )
            )
    return found


def _speed(raw: dict[str, Any], systems: Sequence[dict[str, Any]]) -> Table:
    """Grouped by load, so that systems stand one above the other."""
    titles: dict[str, str] = raw.get("titles") or {}
    order = list(dict.fromkeys(str(load["load"]) for one in systems for load in one.get("loads") or ()))
    rows: list[Sequence[str]] = []
    for name in order:
        for one in systems:
            for load in one.get("loads") or ():
                if str(load["load"]) != name:
                    continue
                mode = str(load.get("mode", "default"))
                errors: dict[str, int] = load.get("errors") or {}
                rows.append(
                    (
                        titles.get(name, str(name)),
                        str(one["system"]) + ("" if mode == "default" else f" ({mode})"),
                        significant(load.get("per_second")),
                        ratio(load.get("ratio")),
                        duration(load.get("p50_ms")),
                        duration(load.get("p99_ms")),
                        ", ".join(f"{count} {what}" for what, count in errors.items()) or "none",
                    )
                )
    setting: dict[str, Any] = raw.get("setting") or {}
    note = (
        f"{whole(setting.get('documents'))} documents of {setting.get('dimension', MISSING)} dimensions, "
        f"{setting.get('seconds', MISSING)} s a load, {setting.get('rounds', MISSING)} rounds, median; "
        f"{raw.get('cpus', MISSING)} processors shared by clients and system. Per second: documents of "
        f"writes, requests of reads. Repeat: {raw.get('command', MISSING)}"
    )
    return Table(
        "Speed",
        ("load", "system", "per second", "to single", "p50", "p99", "errors"),
        rows,
        note,
        frozenset({2, 3, 4, 5}),
    )


def _weight(raw: dict[str, Any], systems: Sequence[dict[str, Any]]) -> Table:
    rows = [
        (
            str(one["system"]),
            duration(None if one.get("start_s") is None else one["start_s"] * 1000),
            whole(one.get("fill_per_second")),
            MISSING if one.get("recall_at_10") is None else f"{one['recall_at_10']:.3f}",
            _mib(one.get("memory_mib_total")),
            whole(one.get("processes_total")),
            whole(one.get("threads")),
            _mib(one.get("disk_mib_total")),
            shorten(str(one.get("error") or "none"), 90),
        )
        for one in systems
    ]
    return Table(
        "Weight",
        (
            "system",
            "start",
            "filled, documents/s",
            "recall@10",
            "memory",
            "processes",
            "threads",
            "disk",
            "error",
        ),
        rows,
        "Filled: documents a second, 500 a request. Memory: proportional set size of all processes together, "
        "after the loads. Disk: of all members together, after the filling.",
        frozenset(range(1, 8)),
    )


def operation(system: dict[str, Any], name: str) -> dict[str, Any]:
    """`failover` or `backup` of one row of `systems`; empty if it is not known."""
    known: dict[str, dict[str, Any]] = system.get("operations") or {}
    return known.get(name) or {}


def _operation(system: str, raw: dict[str, Any]) -> Sequence[str] | None:
    if not raw:
        return None
    return (
        system,
        "; ".join(raw.get("commands") or ()) or "nothing",
        *(str(raw.get(name) or MISSING) for name in ("outage", "loses", "needs", "checked")),
    )


def _mib(value: float | None) -> str:
    return MISSING if value is None else f"{value:,.0f} MiB"
