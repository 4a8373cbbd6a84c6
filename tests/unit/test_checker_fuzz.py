"""The checker against the slow and obvious one, and against histories that were made good or bad."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from evaluation.checking import sets, zones
from evaluation.checking.judge import judge
from evaluation.checking.linearizability import Budget, check, check_keys, search, tighten
from evaluation.checking.minimize import minimize, unit
from evaluation.checking.models import (
    APPEND_LIST,
    CATALOGUE,
    CONDITIONAL,
    GROWING_SET,
    NEVER,
    REGISTER,
    Call,
    Model,
    calls_of,
)
from evaluation.checking.verdict import Verdict
from evaluation.history import Action, Fate, Operation, Phase
from tests.unit import checker_brute as brute
from tests.unit.checker_synthetic import Recipe, history
from tests.unit.checker_synthetic import record as synthetic_record

MODELS: dict[str, Model] = {
    "register": REGISTER,
    "plain": REGISTER,
    "catalogue": CATALOGUE,
    "set": GROWING_SET,
    "append": APPEND_LIST,
}
#: kind -> cases; 10,000 in all.
CASES = {"register": 4_000, "plain": 2_500, "catalogue": 1_500, "set": 1_500, "append": 500}
MANY = 1_000_000


def cases(kind: str, number: int) -> list[Operation]:
    """A third made up at random, a third good, a third good and then made wrong."""
    rng = random.Random(f"{kind} {number}")
    size, span = rng.randint(2, 7), rng.choice((4, 8, 14))
    operations = brute.made_up(kind, rng, size=size, span=span, good=number % 3 > 0)
    if number % 3 == 2:
        operations = brute.mutated(operations, rng)
    return operations


@pytest.mark.parametrize("kind", CASES)
def test_same_verdicts_as_the_brute_force_checker(kind: str) -> None:
    found: Counter[tuple[int, bool]] = Counter()
    for number in range(CASES[kind]):
        operations = cases(kind, number)
        expected = brute.linearizable(operations)
        found[number % 3, expected] += 1
        wanted = Verdict.OK if expected else Verdict.VIOLATION
        calls = calls_of(operations)
        context = f"{kind} {number}: {operations}"
        assert search(calls, MODELS[kind], MANY, MANY).verdict is wanted, context
        assert check(calls, MODELS[kind], MANY, MANY).verdict is wanted, context
        if MODELS[kind] is REGISTER:
            assert search(tighten(calls), REGISTER, MANY, MANY).verdict is wanted, context
        if kind == "set":
            fits = not sets.check_linearizable(operations)[1]
            # Counts are held against their windows only, one by one.
            assert fits or not expected, context
            assert fits is expected or any(op.action is Action.COUNT for op in operations), context
        if number % 3 == 1:
            assert expected, context
    # All kinds of cases are there: bad ones by chance and by mutation, and good ones by chance.
    assert min(found[0, False], found[0, True], found[2, False], found[2, True]) > CASES[kind] // 50, found


def test_an_order_that_is_given_fits() -> None:
    for number in range(300):
        operations = cases("register", number)
        by_id = {op.id: op for op in operations}
        result = search(calls_of(operations), REGISTER, MANY, MANY)
        if result.verdict is Verdict.OK:
            state = brute.INITIAL["register"]
            for one in result.order:
                fits, state = brute.effect(state, by_id[one])
                assert fits
            taken = set(result.order)
            assert all(op.id in taken for op in operations if op.outcome is Fate.OK)


def test_zones_say_the_same_as_the_search_on_larger_histories() -> None:
    found: Counter[bool] = Counter()
    for seed in range(120):
        plan = Recipe(
            operations=120,
            keys=1,
            processes=6,
            weights=(30, 0, 0, 4 if seed % 3 == 0 else 0, 50, 10),
            unknown=0.05,
            stale=0.04 * (seed % 2),
        )
        calls = calls_of(history(plan, seed))
        fast = zones.check(calls)
        if fast is not None:
            found[bool(fast)] += 1
            slow = search(tighten(calls), REGISTER, MANY, MANY).verdict
            assert slow is (Verdict.VIOLATION if fast else Verdict.OK)
            # What it names contradicts itself without the rest.
            if fast:
                part = [call for call in calls if call.id in set(fast)]
                assert search(part, REGISTER, MANY, MANY).verdict is Verdict.VIOLATION
    assert min(found[True], found[False]) > 20


def test_good_histories_violate_nothing() -> None:
    for seed in range(25):
        plan = Recipe(operations=400, keys=8, processes=2 + seed % 9, unknown=0.03)
        operations = history(plan, seed)
        found = {
            one.property for one in judge(synthetic_record(operations), operations).findings
            if one.verdict is Verdict.VIOLATION
        }  # fmt: skip
        assert found == set(), f"seed {seed}"


def test_verdicts_survive_renaming_and_a_shift_of_time() -> None:
    for seed in range(24):
        plan = Recipe(operations=200, keys=5, unknown=0.03, stale=0.02 * (seed % 3), drop=0.02 * (seed % 2))
        operations = history(plan, seed)
        shift, other = 10**12 + seed, random.Random(seed)
        names = {op.process: number for number, op in enumerate(operations)}
        renamed = [
            replace(
                op,
                process=names[op.process] + 1_000,
                session=f"client {op.session}",
                entry=f"entry {op.entry}",
                key=f"doc {op.key}",
                value=None if op.value is None else f"value {op.value}",
                invoked_ns=op.invoked_ns + shift,
                returned_ns=None if op.returned_ns is None else op.returned_ns + shift,
            )
            for op in operations
        ]
        other.shuffle(renamed)
        entries = [{"name": "entry lb", "member": None, "side": "all"}]
        first = judge(synthetic_record(operations), operations).findings
        second = judge(replace(synthetic_record(operations), entries=entries), renamed).findings
        for one, same in zip(first, second, strict=True):
            assert (one.property, one.verdict, one.checked, one.count) == (
                same.property,
                same.verdict,
                same.checked,
                same.count,
            )


def sure_writes(operations: list[Operation], key: str) -> list[Operation]:
    return [op for op in operations if op.key == key and op.action is Action.UPSERT and op.outcome is Fate.OK]


def reads(operations: list[Operation], *, final: bool = False) -> list[Operation]:
    return [
        op
        for op in operations
        if not op.is_write and op.outcome is Fate.OK and (op.phase is Phase.FINAL) is final
    ]


def before(one: Operation, other: Operation) -> bool:
    return one.returned_ns is not None and one.returned_ns < other.invoked_ns


def with_value(operations: list[Operation], read: Operation, value: str | None) -> list[Operation]:
    return [replace(op, value=value) if op.id == read.id else op for op in operations]


def stale_value(operations: list[Operation], rng: random.Random, *, final: bool) -> list[Operation]:
    """A read shows what was replaced before it began."""
    for read in rng.sample(found := reads(operations, final=final), len(found)):
        writes = [op for op in sure_writes(operations, read.key) if before(op, read)]
        for old in writes:
            if any(before(old, new) for new in writes):
                return with_value(operations, read, old.value)
    raise AssertionError("no read to change")


def resurrect(operations: list[Operation], rng: random.Random) -> list[Operation]:
    """A read shows what was deleted before it began."""
    for read in rng.sample(found := reads(operations), len(found)):
        for old in sure_writes(operations, read.key):
            for gone in operations:
                if (
                    (gone.key, gone.action, gone.outcome) == (read.key, Action.DELETE, Fate.OK)
                    and before(old, gone)
                    and before(gone, read)
                ):
                    return with_value(operations, read, old.value)
    raise AssertionError("no read to change")


def swap(operations: list[Operation], rng: random.Random) -> list[Operation]:
    """Two reads have each other's values, one of which was written after the other read."""
    write_of = {op.value: op for op in operations if op.is_write and op.value}
    all_reads = reads(operations)
    for one in rng.sample(all_reads, len(all_reads)):
        for other in all_reads:
            write = write_of.get(other.value)
            if other.key == one.key and write is not None and before(one, write):
                return with_value(with_value(operations, one, other.value), other, one.value)
    raise AssertionError("no reads to change")


def drop(operations: list[Operation], rng: random.Random) -> list[Operation]:
    """A write whose value was read is not in the history."""
    seen = {op.value for op in reads(operations) if op.value}
    gone = rng.choice([op for op in operations if op.is_write and op.value in seen])
    return [op for op in operations if op.id != gone.id]


@pytest.mark.parametrize("weights", [(25, 5, 5, 6, 45, 14), (30, 0, 0, 6, 50, 14), (40, 0, 0, 0, 60, 0)])
@pytest.mark.parametrize("mutation", ["stale", "resurrect", "swap", "drop", "last"])
def test_a_mutation_of_a_good_history_is_caught(mutation: str, weights: tuple[int, ...]) -> None:
    if mutation == "resurrect" and not weights[3]:
        weights = (28, 0, 2, 8, 52, 10)
    for seed in range(12):
        rng = random.Random(seed)
        operations = history(Recipe(operations=400, keys=5, weights=weights, unknown=0.02), seed)
        match mutation:
            case "stale":
                bad = stale_value(operations, rng, final=False)
            case "last":
                bad = stale_value(operations, rng, final=True)
            case "resurrect":
                bad = resurrect(operations, rng)
            case "swap":
                bad = swap(operations, rng)
            case _:
                bad = drop(operations, rng)
        judgement = judge(synthetic_record(bad), bad)
        finding = judgement.of("linearizable")
        assert finding.verdict is Verdict.VIOLATION, f"seed {seed}"
        if mutation == "last":
            convicted = {"lost", "resurrected"} & {
                one.property for one in judgement.findings if one.verdict is Verdict.VIOLATION
            }
            assert convicted, f"seed {seed}"
        if mutation in ("drop", "swap"):
            assert judgement.of("phantom").verdict is Verdict.VIOLATION
        # The counter-example speaks of one key, is small, and is one by the obvious checker's word too.
        example = [op for op in bad if op.id in finding.example]
        assert len({op.key for op in example}) == 1
        if not {op.action for op in example} & {Action.ADD, Action.UPDATE}:
            assert len(example) <= 6
            assert not brute.linearizable(example)


def test_last_reads_are_blamed_exactly_where_no_order_of_the_writes_explains_them() -> None:
    found: Counter[str] = Counter()
    for number in range(2_000):
        kind = ("register", "plain", "catalogue")[number % 3]
        rng = random.Random(f"final {number}")
        operations = brute.made_up(kind, rng, size=rng.randint(2, 6), span=12, good=True)
        writes = [op for op in operations if op.is_write]
        if not writes:
            continue
        if kind == "catalogue":
            # Only what they did counts here, not what they answered.
            writes = [op for op in writes if op.outcome is Fate.UNKNOWN or op.value]
            value: object = rng.random() < 0.5
        else:
            value = rng.choice(
                [None, *(op.value for op in writes if op.value and op.outcome is not Fate.REFUSED)]
            )
        action = Action.EXISTS if kind == "catalogue" else Action.GET
        end = max(op.returned_ns or op.invoked_ns for op in operations) + 100
        read = replace(
            operations[0],
            id=99,
            action=action,
            value=value,
            phase=Phase.FINAL,
            outcome=Fate.OK,
            invoked_ns=end,
            returned_ns=end + 1,
        )
        # A create or drop that took effect whatever was there: no answer binds it.
        effects = [replace(op, value=True) if kind == "catalogue" else op for op in writes]
        expected = explained([*effects, read])
        judgement = judge(synthetic_record([*writes, read]), [*writes, read])
        blamed = {name for name in ("lost", "resurrected") if judgement.of(name).verdict is Verdict.VIOLATION}
        if not blamed and not expected:
            # An update made a document, or an add replaced one: wrong, but nothing is gone for it.
            is_phantom = judgement.of("phantom").verdict is Verdict.VIOLATION
            assert is_phantom or {op.action for op in writes} & CONDITIONAL, f"{number}: {writes} {read}"
            continue
        assert (not blamed) is expected, f"{number}: {blamed} {writes} {read}"
        found["explained" if expected else "+".join(sorted(blamed))] += 1
    assert min(found["explained"], found["lost"], found["resurrected"], found["lost+resurrected"]) > 10, found


def explained(operations: list[Operation]) -> bool:
    """By the obvious checker, a collection's name as a document: created is upserted, dropped is deleted."""
    if operations[0].workload == "catalogue":
        actions = {Action.CREATE: Action.UPSERT, Action.DROP: Action.DELETE, Action.EXISTS: Action.GET}
        operations = [
            replace(
                op,
                workload="register",
                action=actions[op.action],
                value=None if op.action is Action.DROP else (op.value or None),
            )
            for op in operations
        ]
    return brute.linearizable(operations)


def test_making_a_counter_example_smaller_never_makes_a_good_history_bad() -> None:
    checked = 0
    for number in range(1, 4_500, 3):
        kind = ("register", "plain", "catalogue")[number // 3 % 3]
        operations = cases(kind, number)
        calls = calls_of(operations)
        for call in calls:
            gone = unit(call, calls)
            rest = [op for op in operations if op.id not in gone]
            assert brute.linearizable(rest), f"{kind} {number} without {gone}: {operations}"
            checked += 1
    assert checked > 4_000


def test_a_smallest_counter_example_has_nothing_to_spare() -> None:
    made = 0
    for seed in range(20):
        operations = history(Recipe(operations=120, keys=1, processes=4, stale=0.05), seed)
        calls = calls_of(operations)
        if check(calls, REGISTER).verdict is not Verdict.VIOLATION:
            continue
        made += 1
        small = minimize(calls, REGISTER)
        assert check(small, REGISTER).verdict is Verdict.VIOLATION
        assert len(small) <= 8
        for call in small:
            # What an add or update did is taken as known in the example, but not by this check.
            if not call.action.is_write and not {one.action for one in small} & CONDITIONAL:
                rest = [other for other in small if other.id != call.id]
                assert check(rest, REGISTER).verdict is Verdict.OK
    assert made > 10


def hopeless(size: int) -> list[Call]:
    """All at once, and no order fits: every set of them must be tried."""
    writes = [Call(at, Action.ADD if at % 2 else Action.DELETE, f"v{at}", 0, 100) for at in range(size)]
    return [*writes, Call(size, Action.GET, "v1", 101, 102), Call(size + 1, Action.GET, "v3", 103, 104)]


def test_a_hopeless_history_ends_as_unknown_within_its_budget() -> None:
    result = check(hopeless(60), REGISTER, max_steps=20_000)
    assert result.verdict is Verdict.UNKNOWN
    assert result.steps == 20_001
    assert result.order  # as far as it came
    few_states = search(hopeless(60), REGISTER, MANY, 1_000)
    assert few_states.verdict is Verdict.UNKNOWN
    assert few_states.steps < 100_000


def test_budgets_grow_in_rounds_and_stop_at_the_first_violation() -> None:
    good = [Call(0, Action.UPSERT, "a", 0, 1), Call(1, Action.GET, "a", 2, 3)]
    bad = [Call(0, Action.ADD, "a", 0, 1), Call(1, Action.GET, None, 2, 3)]
    budget = Budget(rounds=(100, 1_000, 10_000))
    with_bad = check_keys(
        {"hard": (REGISTER, hopeless(60)), "good": (REGISTER, good), "bad": (REGISTER, bad)}, budget
    )
    assert with_bad.verdict is Verdict.VIOLATION
    assert with_bad.results["hard"].steps == 101
    assert with_bad.results["good"].verdict is Verdict.OK
    without = check_keys({"hard": (REGISTER, hopeless(60)), "good": (REGISTER, good)}, budget)
    assert without.verdict is Verdict.UNKNOWN
    assert without.results["hard"].steps == 10_001
    spent = check_keys({str(at): (REGISTER, hopeless(60)) for at in range(50)}, Budget((500,), 5_000))
    assert spent.verdict is Verdict.UNKNOWN
    assert sum(result.steps for result in spent.results.values()) < 6_000


def test_an_exhausted_budget_is_unknown_and_not_ok() -> None:
    operations = [
        Operation(
            id=call.id,
            workload="register",
            process=call.id,
            session=f"s{call.id}",
            entry="lb",
            action=call.action,
            key="x",
            value=call.value if call.action is not Action.DELETE else None,
            level="default",
            phase=Phase.WARMUP,
            invoked_ns=int(call.invoked),
            returned_ns=int(call.returned),
            outcome=Fate.OK,
        )
        for call in hopeless(60)
    ]
    judgement = judge(synthetic_record(operations), operations, budget=Budget((500,)))
    finding = judgement.of("linearizable")
    assert finding.verdict is Verdict.UNKNOWN
    assert finding.count == 0
    assert "budget" in finding.detail
    assert judgement.measures["keys"]["linearizable"] == {"unknown": 1}
    # Nor are the last reads of it, as long as nothing is proven.
    last = [replace(op, phase=Phase.FINAL, value="v5") if op.id >= 60 else op for op in operations]
    ending = judge(synthetic_record(last), last, budget=Budget((10,)))
    assert ending.of("lost").verdict is Verdict.UNKNOWN
    assert ending.of("resurrected").verdict is Verdict.UNKNOWN


def test_open_writes_that_nobody_read_cost_nothing() -> None:
    """Fifty writes of unknown outcome at once would be 2^50 sets; those not read need not have happened."""
    calls = [Call(at, Action.UPSERT, f"v{at}", 0, NEVER) for at in range(50)]
    calls += [Call(50, Action.DELETE, None, 0, NEVER), Call(51, Action.UPSERT, "a", 1, 2)]
    calls += [Call(52, Action.GET, None, 3, 4), Call(53, Action.GET, "a", 5, 6)]
    result = check(calls, REGISTER)
    assert (result.verdict, result.steps < 50) == (Verdict.VIOLATION, True)
