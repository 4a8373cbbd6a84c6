"""Session guarantees on a made-up replicated system: kept ones never accused, broken ones convicted.

The system: one log of writes, replicas that have a prefix of it, sessions that carry how far they have seen.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from evaluation.checking.judge import judge
from evaluation.checking.sessions import SESSION_LEVELS
from evaluation.checking.verdict import Verdict
from evaluation.history import Action, Fate, Operation, Phase
from tests.unit.checker_histories import record

GUARANTEES = ("read-your-writes", "monotonic-reads", "monotonic-writes", "writes-follow-reads")


class Replicated:
    """`token`: sessions wait for what they have seen. `ordered`: replicas apply the log in its order."""

    def __init__(
        self, seed: int, *, token: bool = True, ordered: bool = True, level: str = "session"
    ) -> None:
        self.rng = random.Random(seed)
        self.token, self.ordered, self.level = token, ordered, level
        self.log: list[tuple[str, Any]] = []
        self.has: dict[str, int] = {f"node-{number}": 0 for number in (1, 2, 3)}
        self.seen: dict[str, int] = {}
        self.counters: dict[str, int] = {}
        self.late: list[tuple[str, Any]] = []
        self.operations: list[Operation] = []
        self.now = 0

    def add(
        self, session: str, action: Action, workload: str, key: str, value: Any, **more: Any
    ) -> Operation:
        self.now += 10
        begin = self.now
        self.now += self.rng.randint(1, 10)
        one = Operation(
            id=len(self.operations),
            workload=workload,
            process=len(self.operations),
            session=session,
            entry="lb",
            action=action,
            key=key,
            value=value,
            level="default" if action.is_write else self.level,
            phase=Phase.WARMUP,
            invoked_ns=begin,
            returned_ns=self.now,
            outcome=Fate.OK,
            **more,
        )
        self.operations.append(one)
        return one

    def write(self, session: str, workload: str, key: str, value: Any) -> None:
        one = self.add(session, Action.UPSERT if value is not None else Action.DELETE, workload, key, value)
        if workload == "register" and self.rng.random() < 0.1:
            # Its outcome is unknown: it takes effect now, later or never.
            self.operations[-1] = replace(one, outcome=Fate.UNKNOWN, returned_ns=None)
            self.late.append((key, value))
            return
        self.log.append((key, value))
        self.seen[session] = len(self.log)

    def read(self, session: str, workload: str, key: str) -> Any:
        node = self.rng.choice(sorted(self.has))
        least = self.seen.get(session, 0) if self.token else 0
        self.has[node] = max(self.has[node], least)
        log = self.log[: self.has[node]]
        if not self.ordered:
            random.Random(f"{node} {len(log)}").shuffle(log)
        value = dict(log).get(key)
        self.add(session, Action.GET, workload, key, value, node=node)
        self.seen[session] = max(self.seen.get(session, 0), self.has[node])
        return value

    def run(self, steps: int = 250) -> list[Operation]:
        rng = self.rng
        for number in range(steps):
            if self.late and rng.random() < 0.1:
                self.log.append(self.late.pop(rng.randrange(len(self.late))))
            for node in self.has:
                self.has[node] += rng.randint(0, len(self.log) - self.has[node]) if rng.random() < 0.1 else 0
            session = f"s{rng.randint(0, 4)}"
            match rng.randint(0, 5):
                case 0:
                    key = f"c-{session}"
                    self.counters[key] = self.counters.get(key, 0) + 1
                    self.write(session, "counter", key, self.counters[key])
                case 1:
                    value = None if rng.random() < 0.2 else f"v{number}"
                    self.write(session, "register", f"r{rng.randint(0, 3)}", value)
                case 2:
                    key = f"c-s{rng.randint(0, 4)}"
                    value = self.read(session, "counter", key)
                    if value is not None:
                        self.write(session, "counter", f"{key}/copy", value)
                case 3:
                    key = f"c-s{rng.randint(0, 4)}"
                    self.read(session, "counter", f"{key}/copy")
                    self.read(session, "counter", key)
                case 4:
                    self.read(session, "counter", f"c-s{rng.randint(0, 4)}")
                case _:
                    self.read(session, "register", f"r{rng.randint(0, 3)}")
        return self.operations


def violated(operations: list[Operation]) -> set[str]:
    judgement = judge(record(), operations)
    return {name for name in GUARANTEES if judgement.of(name).verdict is Verdict.VIOLATION}


def test_kept_guarantees_are_never_accused() -> None:
    for seed in range(60):
        system = Replicated(seed)
        operations = system.run()
        assert violated(operations) == set(), f"seed {seed}"
        judgement = judge(record(), operations)
        for name in GUARANTEES:
            assert judgement.of(name).checked > 0, f"seed {seed}: {name}"


def test_sessions_that_do_not_wait_break_every_guarantee() -> None:
    found = [violated(Replicated(seed, token=False).run()) for seed in range(30)]
    for name, least in (("read-your-writes", 25), ("monotonic-reads", 25), ("writes-follow-reads", 5)):
        assert sum(name in one for one in found) >= least, name
    # Each replica still has the log in order.
    assert not any("monotonic-writes" in one for one in found)


def test_replicas_that_apply_in_another_order_break_monotonic_writes() -> None:
    found = [violated(Replicated(seed, ordered=False).run()) for seed in range(30)]
    assert sum("monotonic-writes" in one for one in found) >= 25


def test_what_reads_at_level_eventual_see_is_no_broken_guarantee() -> None:
    for seed in range(10):
        assert violated(Replicated(seed, token=False, level="eventual").run()) == set()


@pytest.mark.parametrize("level", sorted(SESSION_LEVELS))
def test_what_reads_at_other_levels_see_is(level: str) -> None:
    assert violated(Replicated(1, token=False, level=level).run())


def test_the_witnesses_alone_show_the_same_violation() -> None:
    for seed in range(20):
        operations = Replicated(seed, token=False, ordered=seed % 2 == 0).run()
        judgement = judge(record(), operations)
        for name in GUARANTEES:
            finding = judgement.of(name)
            if finding.verdict is Verdict.VIOLATION:
                part = [one for one in operations if one.id in finding.example]
                assert len(part) <= 5
                assert judge(record(), part).of(name).verdict is Verdict.VIOLATION, f"seed {seed}: {name}"
