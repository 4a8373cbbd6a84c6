"""The tables fault x system: one of verdicts, and one of each number. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluation.report.cells import Cell, cell_of
from evaluation.report.names import in_order
from evaluation.report.numbers import duration, percent, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from evaluation.report.measures import Measures
    from evaluation.report.runs import Evaluation


@dataclass(frozen=True)
class Matrix:
    systems: tuple[str, ...]
    faults: tuple[str, ...]
    cells: dict[tuple[str, str], Cell]
    """(system, fault) -> its runs; also where there are none."""

    def cell(self, system: str, fault: str) -> Cell:
        return self.cells[system, fault]

    def of_system(self, system: str) -> list[Cell]:
        return [self.cell(system, fault) for fault in self.faults]


def matrix_of(evaluation: Evaluation) -> Matrix:
    """Also what matrix.json asked for and nobody ran: a missing run must be seen."""
    asked = evaluation.matrix
    systems = in_order([*(run.system for run in evaluation.runs), *_names(asked.get("systems"))])
    faults = sorted({*(run.fault for run in evaluation.runs), *_names(asked.get("faults"))}, key=_fault_order)
    cells = {
        (system, fault): cell_of(system, fault, evaluation.of(system, fault))
        for system in systems
        for fault in faults
    }
    return Matrix(tuple(systems), tuple(faults), cells)


def _names(value: object) -> list[str]:
    if not isinstance(value, list):
        return []
    items: list[object] = value  # pyright: ignore[reportUnknownVariableType]
    return [item for item in items if isinstance(item, str)]


def _fault_order(name: str) -> tuple[bool, str]:
    """The run without a fault first: it is what the others are compared with."""
    return (name not in ("none", "no-fault"), name)


@dataclass(frozen=True)
class Metric:
    """One number of a cell, as a table of its own."""

    id: str
    title: str
    text: Callable[[Cell], str]
    bad: Callable[[Cell], float]
    """0 (as good as can be) to 1, for the shade of the cell; -1: nothing to shade."""
    note: str = ""


def _shade_count(value: int | None) -> float:
    return -1.0 if value is None else 0.0 if value == 0 else min(1.0, 0.35 + value / 100)


def _shade_available(value: float | None) -> float:
    return -1.0 if value is None else 1.0 - value


def _shade_ms(value: float | None, worst_ms: float) -> float:
    return -1.0 if value is None else min(1.0, max(value, 0.0) / worst_ms)


def _side(name: str, side: str) -> Callable[[Measures], float | None]:
    def value(measures: Measures) -> float | None:
        by_side: dict[str, float] = getattr(measures, name)
        return by_side.get(side, by_side.get("all") if side == "majority" else None)

    return value


def _latency(kind: str, field: str) -> Callable[[Measures], float | None]:
    def value(measures: Measures) -> float | None:
        return getattr(measures.latency[kind], field) if kind in measures.latency else None

    return value


def _counted(metric: str, title: str, count: Callable[[Cell], int | None], note: str) -> Metric:
    return Metric(
        metric, title, lambda cell: whole(count(cell)), lambda cell: _shade_count(count(cell)), note
    )


def _available(side: str) -> Metric:
    of = _side("availability", side)
    return Metric(
        f"available-{side}",
        f"Availability, {side}",
        lambda cell: percent(cell.median(of)),
        lambda cell: _shade_available(cell.median(of)),
        "fraction of the fault's 100 ms windows with an acknowledged request; "
        + (
            "all entries where the fault has no sides"
            if side == "majority"
            else "where the fault has a minority"
        ),
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
        lambda cell: cell.count("lost", "lost-updates"),
        "acknowledged writes missing at the end",
    ),
    _counted(
        "stale",
        "Stale",
        lambda cell: cell.stale,
        "reads that missed what had been acknowledged before they began",
    ),
    _counted(
        "duplicated", "Duplicated", lambda cell: cell.count("duplicated"), "writes that are there twice"
    ),
    _available("majority"),
    _available("minority"),
    _lasting(
        "after-fault",
        "First success in the fault",
        _side("after_fault_ms", "majority"),
        10_000,
        "from the fault's begin, majority side; median over seeds",
    ),
    _lasting(
        "after-heal",
        "First success after healing",
        _side("after_heal_ms", "majority"),
        10_000,
        "from the fault's end, majority side; median over seeds",
    ),
    *(
        _lasting(
            f"{kind}-{quantile}",
            f"{kind.title()} {quantile}",
            _latency(kind, f"{quantile}_ms"),
            1_000,
            f"latency of acknowledged {kind}s, whole run; median over seeds",
        )
        for kind in ("write", "read")
        for quantile in ("p50", "p99")
    ),
)
