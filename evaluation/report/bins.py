"""Operations counted in windows of equal length, entry by entry. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from evaluation.history import Fate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from evaluation.history import Operation


@dataclass
class Bins:
    """One entry's counts, a number a window."""

    writes: list[int]
    """Acknowledged, at the time of the answer; so are `reads`."""
    reads: list[int]
    refused: list[int]
    unknown: list[int]
    """At the time of the request: no answer ever came, or one that settles nothing."""
    slowest_ms: list[float] = field(default_factory=list[float])
    """Of the acknowledged ones; 0 where there are none."""


def binned(operations: Iterable[Operation], window_ns: int, end_ns: int) -> dict[str, Bins]:
    """By entry. What ends after `end_ns` counts in the last window."""
    windows = max(1, -(-end_ns // window_ns))
    counted: dict[str, Bins] = {}
    for operation in operations:
        bins = counted.get(operation.entry)
        if bins is None:
            bins = Bins([0] * windows, [0] * windows, [0] * windows, [0] * windows, [0.0] * windows)
            counted[operation.entry] = bins
        at = operation.invoked_ns
        if operation.outcome is not Fate.UNKNOWN and operation.returned_ns is not None:
            at = operation.returned_ns
        window = min(max(at // window_ns, 0), windows - 1)
        match operation.outcome:
            case Fate.UNKNOWN:
                bins.unknown[window] += 1
            case Fate.REFUSED:
                bins.refused[window] += 1
            case Fate.OK:
                (bins.writes if operation.is_write else bins.reads)[window] += 1
                if operation.returned_ns is not None:
                    took_ms = (operation.returned_ns - operation.invoked_ns) / 1e6
                    bins.slowest_ms[window] = max(bins.slowest_ms[window], took_ms)
    return counted
