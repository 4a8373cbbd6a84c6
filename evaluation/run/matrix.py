"""Which runs there are, in which order they fit a budget, what each system must show, and what a run means.

Pure. A run is a cell: system x fault x seed, with its workloads. Two kinds of expectation: a system keeps
what it promises, whatever the fault; and a weak system is convicted where its weakness must show. A weak
system that shows no anomaly means that the fault did not bite, and then silence about others says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from evaluation.checking.promised import promised
from evaluation.checking.verdict import Judgement, Verdict
from evaluation.history import Fate, Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from evaluation.history import Operation
    from evaluation.record import RunRecord

#: Within this every entry of our own system takes writes again after the heal. Others name no such bound:
#: from them it is enough that they come back at all.
RECOVERY_BOUND_MS = 5_000.0
OURS = frozenset({"cluster", "cluster-5"})


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One run of the matrix."""

    system: str
    fault: str
    seed: int

    @property
    def path(self) -> str:
        return f"{self.system}/{self.fault}/{self.seed}"


@dataclass(frozen=True, slots=True)
class Conviction:
    """Under these faults this system must violate one of these properties, or show one of these errors of
    its own, or the fault did not bite."""

    system: str
    faults: tuple[str, ...]
    any_of: tuple[str, ...]
    because: str
    errors: tuple[str, ...] = ()
    """Kinds of errors that the system counts itself (`RunRecord.measured["system_errors"]`)."""


#: Proven by what everybody reads at the end (`at_the_end`): no lagging read convicts of loss.
LOSS = ("lost", "lost-updates", "resurrected")
STALE = ("linearizable", "read-your-writes", "monotonic-reads", "monotonic-writes", "writes-follow-reads")
PARTITIONS = ("minority-isolated", "majority-lost")
CUT_OFF = ("leader-isolated", "leader-blackhole", "leader-refused")

#: What the weak systems are known for.
CONVICTIONS: tuple[Conviction, ...] = (
    Conviction("naive-lww", PARTITIONS, LOSS, "both sides wrote, and the last write wins"),
    Conviction("naive-crdt", PARTITIONS, LOSS, "both sides wrote, and of two values one register keeps one"),
    Conviction("naive-vector-clock", PARTITIONS, LOSS, "both sides wrote, and of two siblings one is read"),
    Conviction("naive-manual", PARTITIONS, (*LOSS, "diverged"), "both sides wrote, and conflicts wait"),
    Conviction("naive-lww", ("latency-50",), STALE, "reads go to members that are brought up to date late"),
    Conviction("postgres-async", CUT_OFF, LOSS, "the old primary acknowledged what no replica had"),
    Conviction(
        "postgres-async-unfenced",
        CUT_OFF,
        ("split-brain", *LOSS),
        "nobody keeps the old primary from writing",
    ),
    Conviction("postgres-async", ("minority-isolated",), STALE, "a replica that is cut off is read from"),
    Conviction(
        "postgres-quorum",
        ("minority-isolated",),
        STALE,
        "a write waits for one replica of two (ANY 1), and the other one, cut off, is read from",
    ),
    Conviction(
        "shared-dir",
        ("kill-follower", "pause-follower", "kill-all", "restart-storm"),
        STALE,
        "one process's writes get into the way of another's",
        errors=("locked", "readonly"),
    ),
)

#: What a short run must have: our promises under the sharpest faults, and each weak system convicted.
ESSENCE: tuple[tuple[str, str], ...] = (
    ("cluster", "leader-isolated"),
    ("naive-lww", "minority-isolated"),
    ("postgres-async", "leader-isolated"),
    ("cluster", "kill-leader"),
    ("postgres-quorum", "minority-isolated"),
    ("shared-dir", "kill-follower"),
    ("cluster", "pause-leader"),
    ("postgres-async-unfenced", "leader-isolated"),
    ("cluster", "bridge"),
    ("cluster", "one-way-out"),
    ("cluster", "kill-all"),
    ("single", "kill-all"),
    ("postgres-quorum", "leader-isolated"),
    ("postgres-all", "leader-isolated"),
    ("naive-crdt", "minority-isolated"),
    ("naive-vector-clock", "minority-isolated"),
    ("naive-manual", "minority-isolated"),
    ("cluster", "kill-balancer"),
)

#: Run only when they are asked for by name.
OPTIONAL = frozenset({"cluster-5", "postgres-patroni"})


def convictions_of(system: str, fault: str) -> list[Conviction]:
    return [each for each in CONVICTIONS if each.system == system and fault in each.faults]


# ---------------------------------------------------------------------- what a run means


class Result(StrEnum):
    """Of one run, from worst to best."""

    BROKEN = "promise broken"
    UNCONVICTED = "not convicted"
    """A weak system showed nothing where it must: the fault did not bite."""
    ERROR = "error"
    UNKNOWN = "unknown"
    CONVICTED = "convicted"
    """A weak system showed what it must."""
    ANOMALY = "anomaly"
    """Something that the system does not promise did not hold."""
    OK = "ok"


#: Exit codes of `judge` and `evaluate`.
EXIT = {
    Result.BROKEN: 1,
    Result.UNCONVICTED: 1,
    Result.ERROR: 2,
    Result.UNKNOWN: 2,
    Result.CONVICTED: 0,
    Result.ANOMALY: 0,
    Result.OK: 0,
}


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What one run means, and why."""

    result: Result
    reasons: tuple[str, ...] = ()


def conclude(record: RunRecord, judgement: Judgement | None) -> Conclusion:
    """From what was measured and judged. An error outweighs findings: they may stem from the set-up."""
    if record.error:
        lines = record.error.strip().splitlines()
        # Of a traceback the last line says what it was.
        return Conclusion(Result.ERROR, (lines[0], lines[-1]) if "Traceback" in lines[0] else (lines[0],))
    if judgement is None:
        return Conclusion(Result.UNKNOWN, ("not judged",))
    violated = {
        finding.property: finding for finding in judgement.findings if finding.verdict is Verdict.VIOLATION
    }
    broken = [
        f"{name}: {finding.count} ({finding.detail})"
        for name, finding in violated.items()
        if promised(name, record.promises)
    ]
    broken += unrecovered(record)
    # What only the fault itself could look at: no client's history shows it.
    broken += [str(each) for each in record.fault_detail.get("broken", ())]
    if broken:
        return Conclusion(Result.BROKEN, tuple(broken))
    missing = [
        f"no violation of {' or '.join(each.any_of)}, although {each.because}"
        for each in convictions_of(record.system, record.fault)
        if not at_the_end(violated, judgement) & set(each.any_of)
        and not (each.errors and own_errors(record, each.errors))
    ]
    if missing:
        return Conclusion(Result.UNCONVICTED, tuple(missing))
    undecided = [
        finding.property
        for finding in judgement.findings
        if finding.verdict is Verdict.UNKNOWN and promised(finding.property, record.promises)
    ]
    if undecided:
        return Conclusion(Result.UNKNOWN, (f"undecided: {', '.join(undecided)}",))
    shown = tuple(f"{name}: {finding.count}" for name, finding in violated.items()) + own_errors(record)
    if convictions_of(record.system, record.fault):
        return Conclusion(Result.CONVICTED, shown)
    return Conclusion(Result.ANOMALY if shown else Result.OK, shown)


def at_the_end(violated: Iterable[str], judgement: Judgement) -> set[str]:
    """Of the violated properties those that may convict: lost updates only if they are lost for good, since
    a list that was read meanwhile may only have been late."""
    names = set(violated)
    if not judgement.measures.get("lost_updates", {}).get("for_good"):
        names.discard("lost-updates")
    return names


def own_errors(record: RunRecord, kinds: Sequence[str] = ()) -> tuple[str, ...]:
    """Errors that the system counted itself, of these kinds or of all."""
    counts: Mapping[str, int] = record.measured.get("system_errors", {})
    return tuple(
        f"{kind}: {count}" for kind, count in counts.items() if count and (not kinds or kind in kinds)
    )


def unrecovered(record: RunRecord) -> list[str]:
    """Entries that did not come back in time, on a system that promises to be available."""
    if not record.promises.get("available_majority"):
        return []
    found: list[str] = []
    recovery: Mapping[str, float | None] = record.measured.get("recovery_ms", {})
    for entry, after_ms in recovery.items():
        if after_ms is None:
            found.append(f"recovery: {entry} took no write any more after the heal")
        elif after_ms > RECOVERY_BOUND_MS and record.system in OURS and "slowed" not in record.fault_detail:
            # Where the tool of the fault itself slows a member beyond the heal, no bound can be told.
            found.append(f"recovery: {entry} took its first write {after_ms / 1000:.1f} s after the heal")
    health = record.measured.get("health_after")
    if health:
        found.append(f"recovery: not healthy in the end: {health}")
    return found


def late_refusals(
    record: RunRecord, operations: Iterable[Operation], bound_ms: float
) -> tuple[dict[str, float | None], list[Operation]]:
    """How entries of the minority behave once the cut is complete: entry -> ms until it first refused a write
    (None: never), and the writes that it took although they began after the bound."""
    cut_ns = int(record.measured.get("fault_applied_ns", record.fault_begin_ns))
    parted = {entry["name"] for entry in record.entries if entry["side"] == "minority"}
    first: dict[str, float | None] = dict.fromkeys(sorted(parted))
    taken: list[Operation] = []
    for operation in operations:
        if not (operation.is_write and operation.entry in parted and operation.phase is Phase.FAULT):
            continue
        if operation.outcome is Fate.OK and operation.invoked_ns > cut_ns + bound_ms * 1e6:
            taken.append(operation)
        if operation.outcome is Fate.REFUSED and operation.returned_ns is not None:
            after_ms = max(0.0, (operation.returned_ns - cut_ns) / 1e6)
            known = first[operation.entry]
            first[operation.entry] = after_ms if known is None else min(known, after_ms)
    return first, taken


def worst(results: Iterable[Result]) -> Result:
    order = list(Result)
    return min(results, key=order.index, default=Result.OK)


def exit_code(results: Iterable[Result]) -> int:
    """1: a promise is broken or a conviction is missing; 2: an error or unknown; 0: all as expected."""
    codes = {EXIT[result] for result in results}
    return 1 if 1 in codes else max(codes, default=0)


# ---------------------------------------------------------------------- which runs


def cells(
    systems: Sequence[str],
    faults: Sequence[str],
    seeds: Sequence[int],
    applies: Callable[[str, str], bool],
    *,
    essence_only: bool = False,
) -> list[Cell]:
    """In order of priority: what must be convicted and our own promises first, then the rest; then again
    with the next seed."""
    found = [
        Cell(system, fault, seed)
        for seed in seeds
        for fault in faults
        for system in systems
        if ((system, fault) in ESSENCE or not essence_only) and applies(system, fault)
    ]
    first = {seed: number for number, seed in enumerate(seeds)}
    return sorted(found, key=lambda cell: (first[cell.seed], _rank(cell)))


def default_systems(known: Iterable[str]) -> tuple[str, ...]:
    """All but those that need more than this project installs."""
    return tuple(name for name in known if name not in OPTIONAL)


def _rank(cell: Cell) -> tuple[int, int]:
    """Lower comes first: the essence in its order, then convictions, then our own system, then the rest."""
    pair = (cell.system, cell.fault)
    if pair in ESSENCE:
        return 0, ESSENCE.index(pair)
    if convictions_of(cell.system, cell.fault):
        return 1, 0
    return (2 if cell.system in OURS else 3), 0


def summary(conclusions: Mapping[Cell, Conclusion]) -> dict[str, Any]:
    """Counts by result."""
    counts: dict[str, Any] = {}
    for conclusion in conclusions.values():
        counts[conclusion.result.value] = counts.get(conclusion.result.value, 0) + 1
    return counts
