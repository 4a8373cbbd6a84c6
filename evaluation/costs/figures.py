"""From the rounds' measurements to the figures of the result. Pure."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluation.costs.closed_loop import Measured
    from evaluation.costs.loads import Load

#: What every ratio is relative to.
REFERENCE = "single"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadFigures:
    """One load on one system in one round."""

    load: str
    mode: str
    clients: int
    documents_per_request: int
    per_second: float
    """Documents for writes, requests for reads; only answered ones."""
    p50_ms: float
    p99_ms: float
    errors: dict[str, int] = field(default_factory=dict[str, int])
    load_average: float = 0.0


def load_figures(load: Load, mode: str, measured: Measured, load_average: float) -> LoadFigures:
    """What the closed loop has measured, as one load's figures."""
    return LoadFigures(
        load=load.name,
        mode=mode,
        clients=load.clients,
        documents_per_request=load.documents_per_request,
        per_second=measured.per_second * load.documents_per_request,
        p50_ms=measured.percentile(50),
        p99_ms=measured.percentile(99),
        errors=measured.errors,
        load_average=load_average,
    )


@dataclass(slots=True, kw_only=True)
class RoundFigures:
    """One system in one round: started on an empty folder, filled, measured, stopped."""

    start_s: float = 0.0
    fill_per_second: float = 0.0
    recall: float | None = None
    memory_mib: dict[str, float] = field(default_factory=dict[str, float])
    processes: dict[str, int] = field(default_factory=dict[str, int])
    threads: int = 0
    disk_mib: dict[str, float] = field(default_factory=dict[str, float])
    loads: list[LoadFigures] = field(default_factory=list[LoadFigures])
    drills: dict[str, dict[str, Any] | None] = field(default_factory=dict[str, "dict[str, Any] | None"])
    error: str = ""


def recall(found: Sequence[Sequence[str]], exact: Sequence[Sequence[str]]) -> float:
    """Mean share of the exact neighbours that were found."""
    shares = [len(set(a) & set(b)) / len(b) for a, b in zip(found, exact, strict=True)]
    return round(statistics.fmean(shares), 4)


def systems(rounds: dict[str, list[RoundFigures]]) -> list[dict[str, Any]]:
    """Medians over the rounds of each system; ratios within each round first, as rounds differ in weather."""
    return [_system(name, mine, rounds.get(REFERENCE, [])) for name, mine in rounds.items()]


def _system(name: str, mine: list[RoundFigures], reference: list[RoundFigures]) -> dict[str, Any]:
    valid = [one for one in mine if not one.error]
    errors = [one.error for one in mine if one.error]
    row: dict[str, Any] = {"system": name, "rounds": len(valid), "error": errors[0] if errors else ""}
    if not valid:
        return row
    recalls = [one.recall for one in valid if one.recall is not None]
    row["start_s"] = round(statistics.median(one.start_s for one in valid), 2)
    row["fill_per_second"] = round(statistics.median(one.fill_per_second for one in valid), 1)
    row["recall_at_10"] = round(statistics.median(recalls), 4) if recalls else None
    last = valid[-1]
    row["memory_mib"] = last.memory_mib
    row["memory_mib_total"] = round(sum(last.memory_mib.values()), 1)
    row["processes"] = last.processes
    row["processes_total"] = sum(last.processes.values())
    row["threads"] = last.threads
    row["disk_mib"] = last.disk_mib
    row["disk_mib_total"] = round(sum(last.disk_mib.values()), 1)
    row["loads"] = [
        _load(key, mine, reference)
        for key in dict.fromkeys(_key(one) for each in valid for one in each.loads)
    ]
    return row


def _load(key: tuple[str, str], mine: list[RoundFigures], reference: list[RoundFigures]) -> dict[str, Any]:
    measured = [one for each in mine for one in each.loads if _key(one) == key]
    errors: dict[str, int] = {}
    for one in measured:
        for kind, count in one.errors.items():
            errors[kind] = errors.get(kind, 0) + count
    first = measured[0]
    return {
        "load": first.load,
        "mode": first.mode,
        "clients": first.clients,
        "documents_per_request": first.documents_per_request,
        "per_second": round(statistics.median(one.per_second for one in measured), 1),
        "p50_ms": round(statistics.median(one.p50_ms for one in measured), 2),
        "p99_ms": round(statistics.median(one.p99_ms for one in measured), 2),
        "rounds": [round(one.per_second, 1) for one in measured],
        "ratio": _ratio(key, mine, reference),
        "errors": errors,
        "load_average": [one.load_average for one in measured],
    }


def _ratio(key: tuple[str, str], mine: list[RoundFigures], reference: list[RoundFigures]) -> float | None:
    """Per second relative to the reference's same load in the same round; the median of the rounds."""
    ratios: list[float] = []
    for own, other in zip(mine, reference, strict=False):
        a = next((one.per_second for one in own.loads if _key(one) == key), None)
        b = next((one.per_second for one in other.loads if one.load == key[0]), None)
        if a is not None and b:
            ratios.append(a / b)
    return round(statistics.median(ratios), 3) if ratios else None


def _key(one: LoadFigures) -> tuple[str, str]:
    return one.load, one.mode
