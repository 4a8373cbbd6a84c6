"""What the log's benchmark makes of the times that it measured. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from evaluation.quantiles import quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluation.raft.load import Driven

System: TypeAlias = Literal["ours", "stock"]
"""Whose log is measured: this project's, or unmodified pysyncobj's."""
Failure: TypeAlias = Literal["kill", "freeze", "black-hole"]
"""How the leader fails."""


@dataclass(frozen=True)
class Round:
    """One load on one new cluster."""

    driven: Driven
    elections: int
    """By how much the term rose."""
    load_average: float


@dataclass(frozen=True)
class Latency:
    """A load's rounds together: the times of all commits, and each round's rate and load average."""

    commits: int
    per_second: list[float]
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    elections: int
    errors: dict[str, int]
    unanswered: int
    load_averages: list[float]


@dataclass(frozen=True)
class Failover:
    """Trials of one failure, on one cluster."""

    pauses_ms: list[float]
    acknowledged: int
    lost: int
    load_average: float


def summarize(rounds: Sequence[Round]) -> Latency:
    latencies_ms = [each for one in rounds for each in one.driven.latencies_ms]
    errors: Counter[str] = Counter()
    for one in rounds:
        errors.update(one.driven.errors)
    return Latency(
        commits=len(latencies_ms),
        per_second=[one.driven.per_second for one in rounds],
        p50_ms=quantile(latencies_ms, 0.5),
        p99_ms=quantile(latencies_ms, 0.99),
        max_ms=quantile(latencies_ms, 1.0),
        elections=sum(one.elections for one in rounds),
        errors=dict(errors),
        unanswered=sum(one.driven.unanswered for one in rounds),
        load_averages=[one.load_average for one in rounds],
    )


def lost(acknowledged: Sequence[str], logs: Sequence[Sequence[str]]) -> list[str]:
    """What was acknowledged and is missing in at least one of the logs."""
    held = [set(log) for log in logs]
    return [text for text in acknowledged if not all(text in log for log in held)]
