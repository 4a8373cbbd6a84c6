"""What a run decides on the way: is there traffic enough, who takes writes again, what is read at the end.

Pure.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from evaluation.history import Action, Fate, Operation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evaluation.run.plan import RunPlan, Timing
    from evaluation.systems.interface import Entry


def side_of(entry: Entry, sides: Mapping[str, str]) -> str:
    """Where the clients of an entry stand: majority, minority, or all if nothing is parted."""
    names = ("balancer", "client") if entry.member is None else (f"client@{entry.member}", entry.member)
    return next((sides[name] for name in names if name in sides), "all")


def acknowledged(operation: Operation) -> bool:
    return operation.is_write and operation.outcome is Fate.OK and operation.action is not Action.DROP


def first_writes(operations: Sequence[Operation]) -> dict[str, int]:
    """Entry -> when its first write was acknowledged, of those given."""
    first: dict[str, int] = {}
    for operation in operations:
        if acknowledged(operation) and operation.returned_ns is not None:
            first[operation.entry] = min(
                operation.returned_ns, first.get(operation.entry, operation.returned_ns)
            )
    return first


def below_floor(
    recent: Sequence[Operation], everything: Sequence[Operation], plan: RunPlan, timing: Timing
) -> str:
    """Why the traffic is not enough yet; empty if it is."""
    rate = sum(operation.outcome is Fate.OK for operation in recent) / timing.warmup_s
    ok = {operation.workload for operation in everything if operation.outcome is Fate.OK}
    missing = sorted(set(plan.workloads) - ok)
    if missing:
        return f"no successful operation of {', '.join(missing)}"
    if rate < timing.floor_per_second:
        errors = Counter(operation.error for operation in recent if operation.error).most_common(3)
        return f"{rate:.0f} operations a second succeed, the floor is {timing.floor_per_second:g}; {errors}"
    return ""


def final_levels(levels: Sequence[str], member: str | None) -> tuple[str, ...]:
    """Through the balancer the strongest level; at a member also what it has by itself."""
    if "linearizable" not in levels:
        return tuple(levels[:1])
    return ("linearizable",) if member is None else ("linearizable", "eventual")
