"""`python -m tests.unit.checker_benchmark`: what the checker takes on made-up histories (CPU time)."""

from __future__ import annotations

import sys
from dataclasses import replace
from time import process_time

from evaluation.checking.findings import by_key
from evaluation.checking.judge import judge
from evaluation.checking.linearizability import search
from evaluation.checking.models import REGISTER, calls_of
from evaluation.history import Action, Operation, Phase
from tests.unit.checker_synthetic import Recipe, history, record

RECIPES = {
    "all kinds of operations": Recipe(),
    "upserts, deletes, gets": Recipe(weights=(30, 0, 0, 8, 48, 14)),
    "upserts and gets": Recipe(weights=(35, 0, 0, 0, 50, 15)),
    "50 processes": Recipe(processes=50),
    "5 % unknown": Recipe(unknown=0.05),
    "1 % of reads stale": Recipe(stale=0.01),
    "2 % of writes lost": Recipe(drop=0.02),
    "10 keys": Recipe(keys=10),
    "100,000 operations on 1,000 keys": Recipe(operations=100_000, keys=1_000),
}


def _search_alone(operations: list[Operation]) -> tuple[float, int]:
    began, steps = process_time(), 0
    for group in by_key(operations).values():
        steps += search(calls_of(group), REGISTER, 3_000_000, 300_000).steps
    return process_time() - began, steps


def hopeless(keys: int, size: int) -> list[Operation]:
    """Adds and deletes all at once, and reads that fit no order: every set of them would have to be tried."""
    base = history(Recipe(operations=1, finals=False, unknown=0, refused=0), seed=1)[0]
    operations: list[Operation] = []
    for key in range(keys):
        for at in range(size):
            add = at % 2 == 1
            one = replace(
                base,
                id=len(operations),
                process=at,
                session=f"s{at}",
                key=f"k{key}",
                action=Action.ADD if add else Action.DELETE,
                value=f"v{key}.{at}" if add else None,
                invoked_ns=0,
                returned_ns=100,
            )
            operations.append(one)
        for at in (1, 3):
            read = replace(operations[-1], action=Action.GET, value=f"v{key}.{at}", phase=Phase.FINAL)
            begin = 100 + at
            operations.append(replace(read, id=len(operations), invoked_ns=begin, returned_ns=begin + 1))
    return operations


def main() -> None:
    print(f"{'history':42} {'judge s':>9} {'linearizable':>13} {'search alone s':>15} {'steps':>10}")
    for name, recipe in RECIPES.items():
        operations = history(replace(recipe), seed=1)
        began = process_time()
        judgement = judge(record(operations), operations)
        took = process_time() - began
        alone, steps = _search_alone(operations)
        verdict = judgement.of("linearizable").verdict
        print(f"{name:42} {took:9.2f} {verdict:>13} {alone:15.2f} {steps:10}", flush=True)

    operations = hopeless(keys=100, size=98)
    began = process_time()
    judgement = judge(record(operations), operations)
    name = "hopeless: 100 operations at once, 100 keys"
    print(f"{name:42} {process_time() - began:9.2f} {judgement.of('linearizable').verdict:>13}")


if __name__ == "__main__":
    sys.exit(main())
