"""Synthetic run folders for the report's tests: a simulated register, with violations planted on purpose.

Times, values and answers come from a seeded generator; no process is started and no clock is read.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import orjson

from evaluation.checking.judge import judge
from evaluation.checking.verdict import PROPERTIES, Finding, Judgement, Verdict
from evaluation.history import Action, Fate, Operation, Phase, write_history
from evaluation.record import Event, RunRecord

if TYPE_CHECKING:
    from pathlib import Path

SECOND = 1_000_000_000
FAULT_BEGIN, FAULT_END, QUIET, END = 4 * SECOND, 9 * SECOND, 13 * SECOND, 14 * SECOND
MEMBERS = ("node-1", "node-2", "node-3")


@dataclass
class Simulated:
    """One run before it is written."""

    record: RunRecord
    operations: list[Operation] = field(default_factory=list[Operation])
    judgement: Judgement | None = None

    def write(self, out: Path) -> Path:
        folder = out / self.record.system / self.record.fault / str(self.record.seed)
        self.record.save(folder)
        write_history(folder / "history.jsonl", self.operations)
        if self.judgement:
            (folder / "verdict.json").write_bytes(orjson.dumps(self.judgement.to_json()))
        return folder


PROMISES: dict[str, dict[str, Any]] = {
    "cluster": {
        "durable": True,
        "levels": {"linearizable": "linearizable", "session": "session", "eventual": "eventual"},
        "one_leader": True,
        "converges": True,
        "atomic_batches": True,
        "available_majority": True,
    },
    "naive-lww": {"durable": False, "levels": {"default": "eventual"}, "converges": True},
    "postgres-async": {"durable": False, "levels": {"default": "none"}, "converges": True},
}


def record(system: str = "cluster", fault: str = "leader-isolated", seed: int = 1, **more: Any) -> RunRecord:
    """A run without operations; `more` replaces fields."""
    values: dict[str, Any] = {
        "system": system,
        "fault": fault,
        "workloads": ["register"],
        "seed": seed,
        "command": f"chroma-cluster evaluate --systems {system} --faults {fault} --seed {seed}",
        "started_at": "2026-01-02T03:04:05+00:00",
        "members": list(MEMBERS),
        "entries": [
            {"name": "lb", "member": None, "side": "majority"},
            {"name": "node-1", "member": "node-1", "side": "minority"},
            {"name": "node-2", "member": "node-2", "side": "majority"},
        ],
        "promises": PROMISES.get(system, {}),
        "fault_begin_ns": FAULT_BEGIN,
        "fault_end_ns": FAULT_END,
        "quiet_ns": QUIET,
        "end_ns": END,
        "fault_detail": {"struck": ["node-1"], "kind": "jammed"},
        "events": [
            Event(at_ns=0, kind="leader", member="node-1", term=3),
            Event(at_ns=FAULT_BEGIN, kind="fault-begin", member="node-1", text="isolated"),
            Event(at_ns=FAULT_BEGIN + 900_000_000, kind="leader", member="node-2", term=4),
            Event(at_ns=FAULT_END, kind="fault-end", text="healed"),
            Event(at_ns=FAULT_END + 200_000_000, kind="role", member="node-1", role="follower", term=4),
        ],
    }
    return RunRecord(**(values | more))


def judgement(measures: dict[str, Any] | None = None, **findings: Finding | Verdict) -> Judgement:
    """All properties: those named (with `_` for `-`) as given, the others not checked."""
    given = {name.replace("_", "-"): value for name, value in findings.items()}
    made: list[Finding] = []
    for name in PROPERTIES:
        value = given.get(name, Verdict.NOT_CHECKED)
        made.append(value if isinstance(value, Finding) else Finding(name, value, checked=10))
    return Judgement(tuple(made), measures or {})


def phase_at(at_ns: int) -> Phase:
    if at_ns < FAULT_BEGIN:
        return Phase.WARMUP
    if at_ns < FAULT_END:
        return Phase.FAULT
    return Phase.HEALED if at_ns < QUIET else Phase.FINAL


def traffic(*, seed: int, both_sides_accept: bool, lose: int = 0) -> list[Operation]:
    """A register per document, three clients; the minority's entry refuses, or accepts and is overruled.

    `lose`: so many acknowledged writes of the fault are planted as lost: the final reads return older values.
    """
    rng = random.Random(seed)
    operations: list[Operation] = []
    state: dict[str, str | None] = {f"doc-{number}": None for number in range(8)}
    before_loss = dict(state)
    lost: set[str] = set()
    entries = ("lb", "node-1", "node-2")
    # In the order of time over all clients, so that every operation takes effect when it begins.
    turns = [(rng.randrange(1, 20_000_000), process) for process in range(len(entries))]
    heapq.heapify(turns)
    while turns:
        now, process = heapq.heappop(turns)
        entry = entries[process]
        leader = "node-1" if now < FAULT_BEGIN else "node-2"
        if now < QUIET:
            took = int(rng.lognormvariate(16, 0.4))
            key = f"doc-{rng.randrange(8)}"
            write = rng.random() < 0.5
            value = f"{process}-{now // 1000}" if write else state[key]
            outcome, status, error = Fate.OK, 200, ""
            if FAULT_BEGIN <= now < FAULT_END and entry == "node-1" and not both_sides_accept:
                took = 200_000_000
                outcome = Fate.UNKNOWN if write and rng.random() < 0.3 else Fate.REFUSED
                status, error, value = 503, "no leader", value if write else None
            elif FAULT_BEGIN <= now < FAULT_BEGIN + 900_000_000 and not both_sides_accept:
                took, outcome, status, error = 100_000_000, Fate.REFUSED, 503, "no leader"
                value = value if write else None
            if write and outcome is Fate.OK:
                if FAULT_BEGIN <= now < FAULT_END and len(lost) < lose and key not in lost:
                    before_loss[key] = state[key]
                    lost.add(key)
                state[key] = value
            operations.append(
                Operation(
                    id=0,
                    workload="register",
                    process=process,
                    session=f"s{process}",
                    entry=entry,
                    action=Action.UPSERT if write else Action.GET,
                    key=key,
                    value=value,
                    level="default",
                    phase=phase_at(now),
                    invoked_ns=now,
                    returned_ns=None if outcome is Fate.UNKNOWN else now + took,
                    outcome=outcome,
                    status=status,
                    error=error,
                    # Entries forward to the leader, or each member answers for itself.
                    node=entry if both_sides_accept and entry != "lb" else leader,
                )
            )
            heapq.heappush(turns, (now + took + rng.randrange(1, 80_000_000), process))
    for number, key in enumerate(sorted(state)):
        value = before_loss[key] if key in lost else state[key]
        at = QUIET + number * 5_000_000
        operations.append(
            Operation(
                id=0, workload="register", process=9, session="final", entry="lb", action=Action.GET, key=key,
                value=value, level="default", phase=Phase.FINAL, invoked_ns=at, returned_ns=at + 3_000_000,
                outcome=Fate.OK, status=200,
            )
        )  # fmt: skip
    operations.sort(key=lambda operation: operation.invoked_ns)
    return [_numbered(operation, number) for number, operation in enumerate(operations)]


def _numbered(operation: Operation, number: int) -> Operation:
    return replace(operation, id=number)


@cache
def _judged(both_sides_accept: bool, lose: int, seed: int, system: str) -> tuple[list[Operation], Judgement]:
    operations = traffic(seed=seed, both_sides_accept=both_sides_accept, lose=lose)
    return operations, judge(record(system), operations)


def good_run(seed: int = 1, fault: str = "leader-isolated", system: str = "cluster") -> Simulated:
    """Nothing planted: the minority refuses, the majority goes on after an election."""
    return Simulated(record(system, fault, seed), *_judged(False, 0, seed, system))


def losing_run(system: str = "naive-lww", seed: int = 1, fault: str = "leader-isolated") -> Simulated:
    """Three acknowledged writes are missing at the end."""
    return Simulated(record(system, fault, seed), *_judged(True, 3, seed, system))


def error_run(system: str = "naive-lww", fault: str = "disk-full", seed: int = 1) -> Simulated:
    return Simulated(record(system, fault, seed, error="health before the fault: chroma-2 does not answer"))
