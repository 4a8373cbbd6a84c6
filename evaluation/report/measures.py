"""`Judgement.measures` in typed form; its JSON form is documented in `evaluation.checking.judge`. Pure.

Everything is optional: an old or partial verdict shows dashes, never zeros.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from evaluation.report.numbers import NEVER

#: In the order of a run. Final reads are measured by nobody's patience: left out.
PHASES = {"warmup": "before the fault", "fault": "in the fault", "healed": "after healing"}


@dataclass(frozen=True)
class Latency:
    """Of acknowledged requests."""

    count: int
    p50: float | None
    p95: float | None
    p99: float | None
    max: float | None


@dataclass(frozen=True)
class Curve:
    """How often reads missed what had been acknowledged t before they began, over pairs of both."""

    points: tuple[tuple[float, int, int, int, int], ...]
    """(t in ms; pairs and missed of t up to the next point; pairs and missed of t and more)."""


@dataclass(frozen=True)
class Side:
    """The clients of one side of the fault, or of `total`; by kind: write, read, any."""

    available: dict[str, float] = field(default_factory=dict[str, float])
    """Fraction of the fault's windows with a success."""
    after_fault_ms: dict[str, float] = field(default_factory=dict[str, float])
    """Time to the first success within the fault; infinite if there was none."""
    after_heal_ms: dict[str, float] = field(default_factory=dict[str, float])
    pause_ms: dict[str, float] = field(default_factory=dict[str, float])
    """The longest time without a success, in the whole run."""


@dataclass(frozen=True)
class Measures:
    stale: dict[str, int] = field(default_factory=dict[str, int])
    """Read level -> reads that were stale."""
    reads: dict[str, int] = field(default_factory=dict[str, int])
    """Read level -> reads that were looked at."""
    sides: dict[str, Side] = field(default_factory=dict[str, Side])
    latency: dict[str, dict[str, Latency]] = field(default_factory=dict[str, dict[str, Latency]])
    """Phase -> kind of request -> latency."""
    curves: dict[str, Curve] = field(default_factory=dict[str, Curve])
    """Read level -> curve."""

    def side(self, name: str) -> Side | None:
        """Where the fault has no sides, all clients count as the majority's."""
        return self.sides.get(name) or (self.sides.get("all") if name == "majority" else None)


def read_measures(raw: dict[str, Any]) -> Measures:
    levels = _tables(_table(raw.get("staleness")).get("levels"))
    return Measures(
        {name: int(one["stale"]) for name, one in levels.items() if "stale" in one},
        {name: int(one["reads"]) for name, one in levels.items() if "reads" in one},
        _sides(raw),
        {
            phase: {kind: _latency(one) for kind, one in _tables(kinds).items()}
            for phase, kinds in _tables(raw.get("latency_ms")).items()
        },
        {name: _curve(one["curve"]) for name, one in levels.items() if "curve" in one},
    )


def _table(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _tables(value: object) -> dict[str, dict[str, Any]]:
    return {name: _table(one) for name, one in _table(value).items()}


def _sides(raw: dict[str, Any]) -> dict[str, Side]:
    availability = _table(raw.get("availability"))
    lasted_ms = availability.get("fault_end_ms", 0.0) - availability.get(
        "fault_bites_ms", availability.get("fault_begin_ms", 0.0)
    )
    in_fault = _tables(raw.get("first_success_after_fault_ms"))
    pauses = _tables(raw.get("longest_pause_ms"))
    after_heal = _tables(raw.get("first_success_after_heal_ms"))
    sides: dict[str, Side] = {}
    for name, kinds in _tables(availability.get("sides")).items():
        side = Side()
        for kind, one in _tables(kinds).items():
            if one.get("during") is None:
                continue  # no fault, or nobody could have had a success
            if not any(one.get("ok", ())) and not any(one.get("failed", ())):
                continue  # nobody asked
            side.available[kind] = float(one["during"])
            first = in_fault.get(name, {}).get(kind)
            side.after_fault_ms[kind] = NEVER if first is None or first > lasted_ms else float(first)
            healed = after_heal.get(name, {}).get(kind)
            side.after_heal_ms[kind] = NEVER if healed is None else float(healed)
            pause = pauses.get(name, {}).get(kind)
            if pause:
                side.pause_ms[kind] = float(pause["ms"])
        if side.available:
            sides[name] = side
    return dict(sorted(sides.items(), key=lambda item: _SIDES.get(item[0], 9)))


_SIDES = {"majority": 0, "all": 1, "minority": 2, "total": 3}


def _latency(raw: dict[str, Any]) -> Latency:
    return Latency(int(raw.get("count", 0)), raw.get("p50"), raw.get("p95"), raw.get("p99"), raw.get("max"))


def _curve(raw: list[dict[str, Any]]) -> Curve:
    return Curve(
        tuple(
            (float(one["t_ms"]), one["pairs_here"], one["missed_here"], one["pairs"], one["missed"])
            for one in raw
        )
    )
