"""The same histories judged by porcupine, a checker that others wrote: the same verdicts.

The oracle is a small Go program (tests/porcupine), built by `make porcupine` if it is not there yet.
"""

from __future__ import annotations

import random
import subprocess
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from evaluation.checking.findings import by_key
from evaluation.checking.linearizability import check, search, tighten
from evaluation.checking.models import (
    APPEND_LIST,
    CATALOGUE,
    GROWING_SET,
    REGISTER,
    Call,
    Model,
    calls_of,
)
from evaluation.checking.verdict import Verdict
from tests.unit import checker_brute as brute
from tests.unit.checker_synthetic import Recipe, history

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]
ORACLE = ROOT / ".cache/bin/porcupine-oracle"
MANY = 1_000_000
WORDS = {"Ok": Verdict.OK, "Illegal": Verdict.VIOLATION}
MODELS: dict[str, Model] = {
    "register": REGISTER,
    "plain": REGISTER,
    "catalogue": CATALOGUE,
    "set": GROWING_SET,
    "append": APPEND_LIST,
}


@pytest.fixture(scope="module")
def oracle() -> Path:
    """Built as the Makefile says; where that fails, so do these tests."""
    made = subprocess.run(["make", "porcupine"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    return ORACLE


def line(model: Model, calls: Sequence[Call]) -> bytes:
    operations: list[dict[str, Any]] = [
        {
            "client": number,
            "action": str(call.action),
            "value": call.value,
            "invoked": int(call.invoked),
            "returned": None if call.open else int(call.returned),
        }
        for number, call in enumerate(calls)
    ]
    return orjson.dumps({"model": model.name, "operations": operations})


def ask(oracle: Path, questions: Sequence[tuple[Model, Sequence[Call]]]) -> list[Verdict]:
    lines = b"\n".join(line(model, calls) for model, calls in questions) + b"\n"
    answer = subprocess.run([oracle], input=lines, capture_output=True, check=True, timeout=120)
    return [WORDS[word] for word in answer.stdout.decode().split()]


def compare(oracle: Path, questions: Sequence[tuple[Model, Sequence[Call]]]) -> Counter[Verdict]:
    theirs = ask(oracle, questions)
    assert len(theirs) == len(questions)
    for (model, calls), expected in zip(questions, theirs, strict=True):
        assert check(calls, model, MANY, MANY).verdict is expected, calls
        assert search(calls, model, MANY, MANY).verdict is expected, calls
        if model is REGISTER:
            assert search(tighten(calls), model, MANY, MANY).verdict is expected, calls
    return Counter(theirs)


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_small_histories_of_every_model(oracle: Path, kind: str) -> None:
    questions: list[tuple[Model, Sequence[Call]]] = []
    for number in range(400):
        rng = random.Random(f"porcupine {kind} {number}")
        operations = brute.made_up(kind, rng, size=rng.randint(3, 12), span=20, good=number % 2 > 0)
        if number % 4 == 3:
            operations = brute.mutated(operations, rng)
        questions.append((MODELS[kind], calls_of(operations)))
    found = compare(oracle, questions)
    assert min(found[Verdict.OK], found[Verdict.VIOLATION]) >= 20


@pytest.mark.parametrize(
    "plan",
    [
        Recipe(operations=1_200, keys=20, unknown=0.03, stale=0.01),
        Recipe(operations=1_200, keys=20, unknown=0.05, drop=0.05),
        Recipe(operations=1_200, keys=20, processes=30, weights=(10, 10, 10, 10, 50, 10), stale=0.02),
        Recipe(operations=1_200, keys=20, weights=(30, 0, 0, 5, 50, 15), stale=0.01),
        Recipe(operations=1_200, keys=20, weights=(40, 0, 0, 0, 60, 0), stale=0.02),
    ],
    ids=["stale", "dropped", "crowded", "deletes", "upserts"],
)
def test_histories_of_a_system_good_and_broken(oracle: Path, plan: Recipe) -> None:
    """Adds, updates, deletes, reads by id and by metadata, refused and unknown operations."""
    questions: list[tuple[Model, Sequence[Call]]] = []
    for seed in range(4):
        questions += [(REGISTER, calls_of(group)) for group in by_key(history(plan, seed)).values()]
    found = compare(oracle, questions)
    assert min(found[Verdict.OK], found[Verdict.VIOLATION]) >= 8
