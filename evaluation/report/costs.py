"""Tables of cost.json (its form: `evaluation.costs.cost`) for the page and the documents. Pure."""

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
    for title, columns, numeric, row in (
        (
            "To fail over: the leader killed once, while one client writes",
            _FAILOVER,
            _FAILOVER_NUMBERS,
            _failover,
        ),
        ("To back up: once, while one client writes", _BACKUP, _BACKUP_NUMBERS, _backup),
    ):
        rows = [found_row for one in systems if (found_row := row(one))]
        if rows:
            found.append(Table(title, columns, rows, "A dash: it was not done once on this system.", numeric))
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
    busy = [str(value) for value in raw.get("load_average") or ()]
    note = (
        f"{whole(setting.get('documents'))} documents of {setting.get('dimension', MISSING)} dimensions, "
        f"{setting.get('seconds', MISSING)} s a load, median of {setting.get('rounds', MISSING)} rounds; "
        f"{raw.get('cpus', MISSING)} processors shared by clients and system, load average "
        f"{' to '.join(busy) or MISSING}. Per second: documents of writes, requests of reads. "
        f"Repeat: `{raw.get('command', MISSING)}`"
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
            "disk",
            "error",
        ),
        rows,
        "Filled: documents a second, 500 a request. Memory: proportional set size of all processes together, "
        "after the loads. Disk: of all members together, after the filling.",
        frozenset(range(1, 7)),
    )


def operation(system: dict[str, Any], name: str) -> dict[str, Any]:
    """`failover` or `backup` of one row of `systems`; empty if it is not known."""
    known: dict[str, dict[str, Any]] = system.get("operations") or {}
    return known.get(name) or {}


_FAILOVER = (
    "system", "typed", "clients notice", "may be lost", "also needed", "pause measured", "lost in it",
)  # fmt: skip
_FAILOVER_NUMBERS = frozenset({5, 6})
_BACKUP = (
    "system", "typed", "clients notice", "not in the copy", "also needed", "pause measured", "took",
    "missing in it",
)  # fmt: skip
_BACKUP_NUMBERS = frozenset({5, 6, 7})


def _failover(system: dict[str, Any]) -> Sequence[str] | None:
    known = operation(system, "failover")
    if not known:
        return None
    drill: dict[str, Any] = known.get("drill") or {}
    pause = duration(drill.get("pause_ms"))
    if drill.get("commands"):
        pause = f"until a person acts, then {duration(drill.get('after_command_ms'))}"
    return (*_words(system, known), pause, _of(drill.get("lost"), drill.get("acknowledged")))


def _backup(system: dict[str, Any]) -> Sequence[str] | None:
    known = operation(system, "backup")
    if not known:
        return None
    drill: dict[str, Any] = known.get("drill") or {}
    seconds = drill.get("seconds")
    return (
        *_words(system, known),
        duration(drill.get("pause_ms")),
        duration(None if seconds is None else seconds * 1000),
        _of(drill.get("missing"), drill.get("acknowledged_before")),
    )


def _words(system: dict[str, Any], known: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(system["system"]),
        "; ".join(known.get("commands") or ()) or "nothing",
        *(str(known.get(name) or MISSING) for name in ("outage", "loses", "needs")),
    )


def _of(count: int | None, whole_of: int | None) -> str:
    return MISSING if count is None else f"{count:,} of {whole_of or 0:,}"


def _mib(value: float | None) -> str:
    return MISSING if value is None else f"{value:,.0f} MiB"
