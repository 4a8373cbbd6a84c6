"""Who got answers when: windows with a success, pauses, first successes, latency, counts."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from evaluation.history import Fate, Operation, Phase
from evaluation.quantiles import rounded_quantile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from evaluation.record import RunRecord

WINDOW_MS = 100
WINDOW_NS = WINDOW_MS * 1_000_000
TOTAL = "total"
KINDS = ("write", "read", "any")


def sides_of(record: RunRecord) -> dict[str, str]:
    """Entry -> the side that its clients stand on while the fault lasts."""
    return {entry["name"]: entry.get("side") or "all" for entry in record.entries}


def bites_ns(record: RunRecord) -> int:
    """When the fault was in place: cutting many links and probing each cut takes up to seconds, in which
    clients have successes that say nothing about the fault."""
    return int(record.measured.get("fault_applied_ns") or record.fault_begin_ns)


def measure(record: RunRecord, operations: Sequence[Operation]) -> dict[str, Any]:
    """All measures of this module, by the names that `evaluation.checking.judge` documents."""
    traffic = [operation for operation in operations if operation.phase is not Phase.FINAL]
    sides = sides_of(record)
    groups: dict[tuple[str, str], list[Operation]] = defaultdict(list)
    for operation in traffic:
        for side in {sides.get(operation.entry, "all"), TOTAL}:
            for kind in ("write" if operation.is_write else "read", "any"):
                groups[side, kind].append(operation)
    # Until the last request was sent: to wait for the answers that are still open then is no pause.
    end = max((operation.invoked_ns for operation in traffic), default=0)
    if record.quiet_ns:
        end = min(end, record.quiet_ns)
    names = [*sorted({side for side, _ in groups} - {TOTAL}), TOTAL]
    availability: dict[str, Any] = {}
    after_fault: dict[str, Any] = {}
    after_heal: dict[str, Any] = {}
    in_fault: dict[str, Any] = {}
    pauses: dict[str, Any] = {}
    for side in names:
        mine = {kind: groups.get((side, kind), []) for kind in KINDS}
        availability[side] = {kind: _windows(record, mine[kind], end) for kind in KINDS}
        after_fault[side] = {kind: _first_success(mine[kind], bites_ns(record)) for kind in KINDS}
        after_heal[side] = {kind: _first_success(mine[kind], record.fault_end_ns) for kind in KINDS}
        in_fault[side] = {kind: _pause_in_fault(record, mine[kind], end) for kind in KINDS}
        pauses[side] = {kind: _longest_pause(mine[kind], end) for kind in KINDS}
    return {
        "operations": count(record, operations),
        "availability": {
            "window_ms": WINDOW_MS,
            "end_ms": end / 1e6,
            "fault_begin_ms": record.fault_begin_ns / 1e6,
            "fault_bites_ms": bites_ns(record) / 1e6,
            "fault_end_ms": record.fault_end_ns / 1e6,
            "sides": availability,
        },
        "first_success_after_fault_ms": after_fault,
        "first_success_after_heal_ms": after_heal,
        "longest_pause_ms": pauses,
        "longest_pause_in_fault_ms": in_fault,
        "recovered_after_fault_ms": {
            side: {
                kind: pause and pause["to_ms"] - record.fault_begin_ns / 1e6 for kind, pause in kinds.items()
            }
            for side, kinds in in_fault.items()
        },
        "latency_ms": latency(operations),
    }


def _time(operation: Operation) -> int:
    return operation.invoked_ns if operation.returned_ns is None else operation.returned_ns


def _windows(record: RunRecord, operations: Iterable[Operation], end_ns: int) -> dict[str, Any]:
    """Counts of completions by window from the run's start, and the shares of windows with a success.

    A share counts whole windows only: those in which the fault begins or ends belong to neither part.
    """
    size = end_ns // WINDOW_NS
    ok, failed = [0] * size, [0] * size
    for operation in operations:
        at = _time(operation) // WINDOW_NS
        if at < size:
            (ok if operation.outcome is Fate.OK else failed)[at] += 1
    if not record.fault_begin_ns and not record.fault_end_ns:
        return {"ok": ok, "failed": failed, "before": _share(ok), "during": None, "after": None}
    begin, end = record.fault_begin_ns, record.fault_end_ns or end_ns
    return {
        "ok": ok,
        "failed": failed,
        "before": _share(ok[: begin // WINDOW_NS]),
        "during": _share(ok[-(-bites_ns(record) // WINDOW_NS) : end // WINDOW_NS]),
        "after": _share(ok[-(-end // WINDOW_NS) :]),
    }


def _share(counts: Sequence[int]) -> float | None:
    return sum(count > 0 for count in counts) / len(counts) if counts else None


def _first_success(operations: Iterable[Operation], since_ns: int) -> float | None:
    """From `since` to the first success of an operation that began after it; None if there is none."""
    if not since_ns:
        return None
    times = (
        operation.returned_ns
        for operation in operations
        if operation.outcome is Fate.OK
        and operation.invoked_ns >= since_ns
        and operation.returned_ns is not None
    )
    first = min(times, default=None)
    return None if first is None else (first - since_ns) / 1e6


def _longest_pause(operations: Iterable[Operation], end_ns: int) -> dict[str, float] | None:
    """The longest time without a success, from the first success until the traffic's end."""
    times = sorted(
        op.returned_ns for op in operations if op.outcome is Fate.OK and op.returned_ns is not None
    )
    if not times:
        return None
    times = [time for time in times if time <= end_ns]
    edges = [*times, max(end_ns, times[-1] if times else 0)]
    gaps = [(later - earlier, earlier, later) for earlier, later in pairwise(edges)]
    if not gaps:
        return None
    length, begin, end = max(gaps, key=lambda gap: (gap[0], -gap[1]))
    return {"ms": length / 1e6, "from_ms": begin / 1e6, "to_ms": end / 1e6}


def _pause_in_fault(
    record: RunRecord, operations: Iterable[Operation], end_ns: int
) -> dict[str, float] | None:
    """The longest time without a success that began while the fault lasted, or at the last success before."""
    if not record.fault_begin_ns:
        return None
    until = record.fault_end_ns or end_ns
    times = sorted(
        op.returned_ns for op in operations if op.outcome is Fate.OK and op.returned_ns is not None
    )
    before = [time for time in times if time <= record.fault_begin_ns]
    begins = before[-1:] + [time for time in times if record.fault_begin_ns < time < until]
    after = next((time for time in times if time >= until), max(end_ns, until))
    gaps = [(later - earlier, earlier, later) for earlier, later in pairwise([*begins, after])]
    if not gaps:
        return None
    length, begin, end = max(gaps, key=lambda gap: (gap[0], -gap[1]))
    return {"ms": length / 1e6, "from_ms": begin / 1e6, "to_ms": end / 1e6}


def latency(operations: Iterable[Operation]) -> dict[str, Any]:
    """Of successes: phase -> kind -> count, percentiles and mean, in milliseconds."""
    times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for operation in operations:
        if operation.outcome is Fate.OK and operation.returned_ns is not None:
            took = (operation.returned_ns - operation.invoked_ns) / 1e6
            kind = "write" if operation.is_write else "read"
            times[operation.phase][kind].append(took)
            if not operation.is_write:
                times[operation.phase][f"read:{operation.level}"].append(took)
    return {
        str(phase): {
            kind: {"count": len(values), "mean": round(sum(values) / len(values), 3)}
            | {f"p{share}": rounded_quantile(values, share / 100) for share in (50, 90, 95, 99)}
            | {"max": rounded_quantile(values, 1.0)}
            for kind, values in sorted(kinds.items())
        }
        for phase, kinds in times.items()
    }


def count(record: RunRecord, operations: Sequence[Operation]) -> dict[str, Any]:
    """By outcome, and by outcome within phase, side (while the fault lasts), entry and so on."""
    sides = sides_of(record)
    tables: dict[str, dict[str, Counter[str]]] = {
        name: defaultdict(Counter) for name in ("phase", "side", "entry", "workload", "kind", "action")
    }
    outcomes: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    for operation in operations:
        outcome = str(operation.outcome)
        outcomes[outcome] += 1
        tables["phase"][operation.phase][outcome] += 1
        if operation.phase is Phase.FAULT:
            tables["side"][sides.get(operation.entry, "all")][outcome] += 1
        tables["entry"][operation.entry][outcome] += 1
        tables["workload"][operation.workload][outcome] += 1
        tables["kind"]["write" if operation.is_write else "read"][outcome] += 1
        tables["action"][operation.action][outcome] += 1
        if operation.error and operation.outcome is not Fate.OK:
            errors[f"{operation.status or '-'} {operation.error[:80]}"] += 1
    return {
        "total": len(operations),
        "by_outcome": dict(outcomes),
        **{f"by_{name}": _plain(table) for name, table in tables.items()},
        "errors": [[text, number] for text, number in errors.most_common(10)],
    }


def _plain(table: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
    return {str(name): dict(counts) for name, counts in sorted(table.items())}
