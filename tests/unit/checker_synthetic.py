"""Histories that a simulated system makes up: good by construction, seeded, with known lengths. Pure.

The system is one copy of all data; each operation takes effect at one moment between its call and its
return. `stale`, `drop` and `undo` break it on purpose, each with a probability.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from evaluation.history import Action, Fate, Operation, Phase
from evaluation.record import RunRecord

_KINDS = (Action.UPSERT, Action.ADD, Action.UPDATE, Action.DELETE, Action.GET, Action.GET_WHERE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What to make up."""

    operations: int = 10_000
    keys: int = 100
    processes: int = 10
    weights: tuple[int, ...] = (25, 5, 5, 6, 45, 14)
    """upsert, add, update, delete, get, get_where."""
    workload: str = "register"
    mean_ns: int = 4_000_000
    """Mean time between call and return."""
    unknown: float = 0.01
    """Share of operations whose outcome the client does not learn; half of such writes never happen."""
    refused: float = 0.005
    stale: float = 0.0
    """Share of reads that show the state before the last change."""
    drop: float = 0.0
    """Share of acknowledged writes that never take effect."""
    finals: bool = True


@dataclass(slots=True)
class _Planned:
    id: int
    process: int
    action: Action
    key: str
    value: Any
    invoked_ns: int
    acts_ns: int
    returned_ns: int
    outcome: Fate = Fate.OK
    happens: bool = True
    phase: Phase = Phase.WARMUP
    answer: Any = field(default=None)


def history(recipe: Recipe, seed: int) -> list[Operation]:
    """In the order of invocation; the same for the same recipe and seed."""
    rng = random.Random(seed)
    free = [(rng.randrange(recipe.mean_ns), number) for number in range(recipe.processes)]
    next_process = recipe.processes
    planned: list[_Planned] = []
    for number in range(recipe.operations):
        free.sort()
        begin, process = free.pop(0)
        took = 1 + int(rng.expovariate(1 / recipe.mean_ns))
        action = rng.choices(_KINDS, recipe.weights)[0]
        value = f"v{number}" if action in (Action.UPSERT, Action.ADD, Action.UPDATE) else None
        one = _Planned(
            number,
            process,
            action,
            f"k{rng.randrange(recipe.keys)}",
            value,
            begin,
            begin + rng.randrange(took + 1),
            begin + took,
        )
        chance = rng.random()
        if chance < recipe.unknown:
            one.outcome, one.happens = Fate.UNKNOWN, rng.random() < 0.5
            one.acts_ns += rng.choice((0, 0, 30 * recipe.mean_ns))
            process = next_process
            next_process += 1
        elif chance < recipe.unknown + recipe.refused:
            one.outcome, one.happens = Fate.REFUSED, False
        elif rng.random() < recipe.drop:
            one.happens = False
        free.append((begin + took + 1 + rng.randrange(recipe.mean_ns), process))
        planned.append(one)
    if recipe.finals:
        end = max(one.acts_ns + one.returned_ns for one in planned)
        for number in range(recipe.keys):
            at = end + number * 1_000
            final = _Planned(len(planned), 0, Action.GET, f"k{number}", None, at, at + 1, at + 2)
            final.phase = Phase.FINAL
            planned.append(final)
    _act(planned, recipe, rng)
    return [
        Operation(
            id=number,
            workload=recipe.workload,
            process=one.process,
            session=f"s{one.process % recipe.processes}",
            entry="lb",
            action=one.action,
            key=one.key,
            value=one.answer if not one.action.is_write else one.value,
            level="default",
            phase=one.phase,
            invoked_ns=one.invoked_ns,
            returned_ns=one.returned_ns,
            outcome=one.outcome,
        )
        for number, one in enumerate(sorted(planned, key=lambda one: (one.invoked_ns, one.id)))
    ]


def _act(planned: list[_Planned], recipe: Recipe, rng: random.Random) -> None:
    """Each takes effect at its moment, on the one copy."""
    state: dict[str, Any] = {}
    before: dict[str, Any] = {}
    for one in sorted(planned, key=lambda one: (one.acts_ns, one.id)):
        now = state.get(one.key)
        if not one.action.is_write:
            is_stale = one.phase is not Phase.FINAL and rng.random() < recipe.stale
            one.answer = before.get(one.key) if is_stale else now
            continue
        if not one.happens:
            continue
        match one.action:
            case Action.ADD:
                new = one.value if now is None else now
            case Action.UPDATE:
                new = now if now is None else one.value
            case _:
                new = one.value
        if new != now:
            before[one.key], state[one.key] = now, new


def record(operations: list[Operation]) -> RunRecord:
    """The record of a run without a fault that belongs to such a history."""
    return RunRecord(
        system="synthetic",
        fault="none",
        workloads=sorted({operation.workload for operation in operations}),
        seed=0,
        command="",
        started_at="",
        entries=[{"name": "lb", "member": None, "side": "all"}],
    )
