"""`python -m evaluation.checking.benchmark`: how long the checker takes on made-up histories."""

from __future__ import annotations

import sys
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING

from evaluation.checker import judge
from evaluation.checking.findings import by_key
from evaluation.checking.linearizability import search
from evaluation.checking.models import REGISTER, calls_of
from evaluation.checking.synthetic import Plan, history, record

if TYPE_CHECKING:
    from evaluation.history import Operation

PLANS = {
    "all kinds of operations": Plan(),
    "upserts, deletes, gets": Plan(weights=(30, 0, 0, 8, 48, 14)),
    "upserts and gets": Plan(weights=(35, 0, 0, 0, 50, 15)),
    "50 processes": Plan(processes=50),
    "5 % unknown": Plan(unknown=0.05),
    "1 % of reads stale": Plan(stale=0.01),
    "2 % of writes lost": Plan(drop=0.02),
    "10 keys": Plan(keys=10),
    "100,000 operations on 1,000 keys": Plan(operations=100_000, keys=1_000),
}


def _search_alone(operations: list[Operation]) -> tuple[float, int]:
    began, steps = perf_counter(), 0
    for group in by_key(operations).values():
        steps += search(calls_of(group), REGISTER, 3_000_000, 300_000).steps
    return perf_counter() - began, steps


def main() -> None:
    print(f"{'history':34} {'judge s':>8} {'linearizable':>13} {'search alone s':>15} {'steps':>10}")
    for name, plan in PLANS.items():
        operations = history(replace(plan), seed=1)
        began = perf_counter()
        judgement = judge(record(operations), operations)
        took = perf_counter() - began
        alone, steps = _search_alone(operations)
        verdict = judgement.of("linearizable").verdict
        print(f"{name:34} {took:8.2f} {verdict:>13} {alone:15.2f} {steps:10}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
