"""How old what was read is: in milliseconds, in versions, and as a probability over time since the ack.

A read that began at s and returned a version is t ms stale if the earliest acknowledgement of a version that
is certainly newer was t ms before s, and k versions stale if k such versions were acknowledged before s.
Only writes that surely took effect count as newer, so both are lower bounds. The curve is over pairs of an
acknowledged write and a later read of its key: the share of reads that show something older.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from evaluation.checking.models import FRACTURED, REGISTERS
from evaluation.checking.sessions import seen
from evaluation.checking.versions import READS, Versions
from evaluation.history import Fate, Operation, Phase
from evaluation.quantiles import rounded_quantile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: Times since the acknowledgement, in milliseconds.
GRID_MS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000)
#: More samples than a figure can show are thinned out evenly.
MOST_SAMPLES = 2_000


@dataclass(slots=True)
class _Series:
    reads: int = 0
    unplaced: int = 0
    stale_ms: list[float] = field(default_factory=list[float])
    versions: list[int] = field(default_factory=list[int])
    samples: list[tuple[float, float, int]] = field(default_factory=list[tuple[float, float, int]])
    pairs: list[int] = field(default_factory=lambda: [0] * len(GRID_MS))
    missed: list[int] = field(default_factory=lambda: [0] * len(GRID_MS))
    never_seen: int = 0
    never_seen_ms: list[float] = field(default_factory=list[float])

    def to_json(self) -> dict[str, Any]:
        stale = [value for value in self.stale_ms if value > 0]
        curve: list[dict[str, Any]] = []
        for at, time_ms in enumerate(GRID_MS):
            pairs, missed = self.pairs[at], self.missed[at]
            within = pairs - self.pairs[at + 1] if at + 1 < len(GRID_MS) else pairs
            missed_within = missed - self.missed[at + 1] if at + 1 < len(GRID_MS) else missed
            curve.append(
                {
                    "t_ms": time_ms,
                    "pairs": pairs,
                    "missed": missed,
                    "p": missed / pairs if pairs else None,
                    "pairs_here": within,
                    "missed_here": missed_within,
                    "p_here": missed_within / within if within else None,
                }
            )
        stride = -(-len(self.samples) // MOST_SAMPLES) or 1
        return {
            "reads": self.reads,
            "unplaced": self.unplaced,
            "stale": len(stale),
            "t_ms": _quantiles(self.stale_ms),
            "stale_t_ms": _quantiles(stale),
            "k": _quantiles(self.versions),
            "samples": [list(sample) for sample in sorted(self.samples)[::stride]],
            "curve": curve,
            "never_seen": self.never_seen,
            "never_seen_ms": rounded_quantile(self.never_seen_ms, 1.0),
        }


def _quantiles(values: Sequence[float]) -> dict[str, float | None]:
    return {f"p{share}": rounded_quantile(values, share / 100) for share in (50, 90, 95, 99, 100)}


def measure(keys: Mapping[tuple[str, str], Sequence[Operation]]) -> dict[str, Any]:
    """By level, and by entry and level. Final reads are left out: they wait until all is quiet."""
    levels: dict[str, _Series] = defaultdict(_Series)
    entries: dict[tuple[str, str], _Series] = defaultdict(_Series)
    for (workload, _), operations in keys.items():
        if workload not in REGISTERS:
            continue
        reads = [
            op
            for op in operations
            if op.action in READS and op.outcome is Fate.OK and op.phase is not Phase.FINAL
        ]
        if not reads:
            continue
        key = _Key(Versions(operations))
        for read in reads:
            key.place(read, (levels[read.level], entries[read.entry, read.level]))
        _censor(key, ((levels[read.level], read) for read in reads))
    by_entry: dict[str, dict[str, Any]] = defaultdict(dict)
    for (entry, level), series in sorted(entries.items()):
        by_entry[entry][level] = series.to_json()
    return {"levels": {name: levels[name].to_json() for name in sorted(levels)}, "entries": dict(by_entry)}


class _Key:
    """The sure writes of one key, ready to be counted."""

    def __init__(self, versions: Versions) -> None:
        self.versions = versions
        self.begins = [write.invoked_ns for write in versions.sure]
        self.acks = [write.returned_ns or 0 for write in versions.sure]
        self.sorted_acks = sorted(self.acks)

    def newer(self, read: Operation, settled: float) -> list[int]:
        """Acknowledgements, before the read began, of what is certainly newer than what it saw."""
        start, end = bisect_right(self.begins, settled), bisect_left(self.begins, read.invoked_ns)
        return [ack for ack in self.acks[start:end] if ack < read.invoked_ns] if start < end else []

    def place(self, read: Operation, series: Iterable[_Series]) -> None:
        value = seen(read)
        settled = float("inf") if value is FRACTURED else self.versions.settled(value)
        newer = self.newer(read, settled)
        begin = read.invoked_ns
        stale_ms = (begin - min(newer)) / 1e6 if newer else 0.0
        for one in series:
            one.reads += 1
            if settled == float("inf"):
                # Its write was never acknowledged: it cannot be placed, and accuses nobody.
                one.unplaced += 1
                continue
            one.stale_ms.append(stale_ms)
            one.versions.append(len(newer))
            if newer:
                one.samples.append((round(begin / 1e6, 3), round(stale_ms, 3), len(newer)))
            for at, time_ms in enumerate(GRID_MS):
                until = begin - time_ms * 1_000_000
                # At 0 as well the acknowledgement came before the read began.
                pairs = (
                    bisect_left(self.sorted_acks, until) if at == 0 else bisect_right(self.sorted_acks, until)
                )
                if not pairs:
                    break
                one.pairs[at] += pairs
                if newer:
                    one.missed[at] += sum(ack <= until for ack in newer)


def _censor(key: _Key, reads: Iterable[tuple[_Series, Operation]]) -> None:
    """Writes that not even the last read of their key and level had seen: not dropped, but open-ended."""
    last: dict[int, tuple[_Series, Operation]] = {}
    for series, read in reads:
        if id(series) not in last or last[id(series)][1].invoked_ns < read.invoked_ns:
            last[id(series)] = (series, read)
    for series, read in last.values():
        value = seen(read)
        if value is FRACTURED:
            continue
        newer = key.newer(read, key.versions.settled(value))
        series.never_seen += len(newer)
        series.never_seen_ms.extend((read.invoked_ns - ack) / 1e6 for ack in newer)
