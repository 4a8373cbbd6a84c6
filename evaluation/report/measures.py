"""`Judgement.measures` in typed form; its JSON form is documented in `evaluation.checker`. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Latency:
    """Of acknowledged requests."""

    count: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True)
class Curve:
    """How often reads of one level missed what was acknowledged t before they began."""

    points: tuple[tuple[float, int, int], ...]
    """(t in ms, reads that missed it, reads)."""


@dataclass(frozen=True)
class Measures:
    """All optional: an old or partial verdict shows dashes, never zeros."""

    stale: int | None = None
    reads: int | None = None
    availability: dict[str, float] = field(default_factory=dict[str, float])
    """Side -> fraction of the fault's windows with a success."""
    after_fault_ms: dict[str, float] = field(default_factory=dict[str, float])
    """Side -> time to the first success; infinite if there was none."""
    after_heal_ms: dict[str, float] = field(default_factory=dict[str, float])
    latency: dict[str, Latency] = field(default_factory=dict[str, Latency])
    curves: dict[str, Curve] = field(default_factory=dict[str, Curve])
    """Read level -> curve."""

    @property
    def sides(self) -> list[str]:
        """Majority first."""
        known = {*self.availability, *self.after_fault_ms, *self.after_heal_ms}
        return sorted(known, key=lambda side: (side != "majority", side))


def read_measures(raw: dict[str, Any]) -> Measures:
    return Measures()
