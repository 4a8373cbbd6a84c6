"""The tables fault x system: one of verdicts, and one of each number. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluation.report.cells import MergedCell, cell_of
from evaluation.report.measures import PHASES
from evaluation.report.names import applies, fault_words, in_order
from evaluation.report.numbers import duration, percent, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from evaluation.report.measures import Measures
    from evaluation.report.runs import Evaluation


@dataclass(frozen=True)
class Matrix:
    systems: tuple[str, ...]
    faults: tuple[str, ...]
    cells: dict[tuple[str, str], MergedCell]
    """(system, fault) -> its runs; also where there are none."""

    def cell(self, system: str, fault: str) -> MergedCell:
        return self.cells[system, fault]

    def of_system(self, system: str) -> list[MergedCell]:
        return [self.cell(system, fault) for fault in self.faults]


def matrix_of(evaluation: Evaluation) -> Matrix:
    """Also what matrix.json asked for and nobody ran: a missing run must be seen."""
    asked = evaluation.matrix
    systems = in_order([*(run.system for run in evaluation.runs), *_names(asked.get("systems"))])
    found = {*(run.fault for run in evaluation.runs), *_names(asked.get("faults"))}
    order = list(fault_words())
    faults = sorted(found, key=lambda name: (order.index(name) if name in order else -1, name))
    cells = {
        (system, fault): cell_of(system, fault, evaluation.of(system, fault), applies=applies(system, fault))
        for system in systems
        for fault in faults
    }
    return Matrix(tuple(systems), tuple(faults), cells)


def _names(value: object) -> list[str]:
    if not isinstance(value, list):
        return []
    items: list[object] = value  # pyright: ignore[reportUnknownVariableType]
    return [item for item in items if isinstance(item, str)]


@dataclass(frozen=True)
class Metric:
    """One number of a cell, as a table of its own."""

    id: str
    title: str
    text: Callable[[MergedCell], str]
    bad: Callable[[MergedCell], float]
    """0 (as good as can be) to 1, for the shade of the cell; -1: nothing to shade."""
    note: str = ""


def _shade_count(value: int | None) -> float:
    return -1.0 if value is None else 0.0 if value == 0 else min(1.0, 0.35 + value / 100)


def _shade_available(value: float | None) -> float:
    return -1.0 if value is None else 1.0 - value


def _shade_ms(value: float | None, worst_ms: float) -> float:
    return -1.0 if value is None else min(1.0, max(value, 0.0) / worst_ms)


def _of_side(field: str, side: str, kind: str) -> Callable[[Measures], float | None]:
    def value(measures: Measures) -> float | None:
        found = measures.side(side)
        by_kind: dict[str, float] = getattr(found, field) if found else {}
        return by_kind.get(kind)

    return value


def _latency(phase: str, kind: str, field: str) -> Callable[[Measures], float | None]:
    def value(measures: Measures) -> float | None:
        found = measures.latency.get(phase, {}).get(kind)
        return getattr(found, field) if found else None

    return value


def _counted(
    metric: str,
    title: str,
    count: Callable[[MergedCell], int | None],
    note: str,
    text: Callable[[MergedCell], str] | None = None,
) -> Metric:
    return Metric(
        metric,
        title,
        text or (lambda cell: whole(count(cell))),
        lambda cell: _shade_count(count(cell)),
        note,
    )


def _available(kind: str, side: str) -> Metric:
    of = _of_side("available", side, kind)
    return Metric(
        f"{kind}s-{side}",
        f"{kind.title()}s available, {side}",
        lambda cell: percent(cell.median(of)),
        lambda cell: _shade_available(cell.median(of)),
        f"fraction of the fault's 100 ms windows with a successful {kind}; "
        + ("all clients where the fault has no sides" if side == "majority" else "where there is a minority"),
    )


def _lasting(
    metric: str, title: str, of: Callable[[Measures], float | None], worst_ms: float, note: str
) -> Metric:
    return Metric(
        metric,
        title,
        lambda cell: duration(cell.median(of)),
        lambda cell: _shade_ms(cell.median(of), worst_ms),
        note,
    )


METRICS: Sequence[Metric] = (
    _counted(
        "lost",
        "Lost",
        lambda cell: cell.count("lost"),
        "acknowledged writes missing at the end",
    ),
    _counted(
        "lost-updates",
        "Lost updates",
        lambda cell: cell.count("lost-updates"),
        "acknowledged items of a list that a list read later lacks; on systems without read levels also "
        "while they are merely not there yet",
    ),
    _counted(
        "stale",
        "Stale",
        lambda cell: cell.stale,
        "reads that missed what had been acknowledged before they began; a read level below linearizable "
        "may be stale without breaking a promise",
        lambda cell: cell.stale_words,
    ),
    _counted(
        "duplicated", "Duplicated", lambda cell: cell.count("duplicated"), "writes that are there twice"
    ),
    _counted(
        "own-errors",
        "Errors of its own",
        lambda cell: sum(cell.own_errors.values()) if cell.measured else None,
        "errors that the system counted itself, such as `database is locked`, and crashes",
        lambda cell: cell.own_errors_words,
    ),
    *(_available(kind, side) for kind in ("write", "read") for side in ("majority", "minority")),
    _lasting(
        "pause",
        "Longest pause of writes",
        _of_side("pause_ms", "majority", "write"),
        10_000,
        "longest time in the run without an acknowledged write, majority's clients",
    ),
    _lasting(
        "after-fault",
        "First write in the fault",
        _of_side("after_fault_ms", "majority", "write"),
        10_000,
        "from when the fault bites, majority's clients; `never`: not before it ended",
    ),
    _lasting(
        "after-heal",
        "First write after healing",
        _of_side("after_heal_ms", "total", "write"),
        10_000,
        "from the fault's end, all clients together",
    ),
    _lasting(
        "after-heal-minority",
        "The same, minority",
        _of_side("after_heal_ms", "minority", "write"),
        10_000,
        "from the fault's end, the minority's clients",
    ),
    *(
        _lasting(
            f"{kind}-{quantile}-{phase}",
            f"{kind.title()} {quantile} {'before' if phase == 'warmup' else 'in fault'}",
            _latency(phase, kind, quantile),
            1_000,
            f"latency of successful {kind}s {PHASES[phase]}",
        )
        for kind in ("write", "read")
        for phase in ("warmup", "fault")
        for quantile in ("p50", "p99")
    ),
)
