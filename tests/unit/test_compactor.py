"""The compactor's decisions, without processes or storage."""

from typing import Any

import numpy as np
import pytest

from evaluation.checking.verdict import Verdict
from evaluation.compactor.document import summary
from evaluation.compactor.holding import holdings
from evaluation.compactor.lease import Lease, claim
from evaluation.compactor.loss import expected, lost
from evaluation.compactor.model import Change, Point, Pointer, Variant, queue_key
from evaluation.compactor.script import FAULTS, script
from evaluation.history import Action, Fate, Operation, Phase


def test_a_free_lock_is_claimed_with_the_first_token() -> None:
    assert claim(None, "a", 1000, 500) == Lease("a", 1, 1500)


def test_a_running_lease_is_nobody_elses_not_even_the_holders() -> None:
    held = Lease("a", 3, 1500)
    assert claim(held, "b", 1499, 500) is None
    assert claim(held, "a", 1499, 500) is None


def test_an_expired_or_released_lease_is_claimed_with_a_greater_token() -> None:
    assert claim(Lease("a", 3, 1500), "b", 1500, 500) == Lease("b", 4, 2000)
    assert claim(Lease("a", 3, 0), "b", 1500, 500) == Lease("b", 4, 2000)


def test_lease_pointer_and_change_survive_encoding() -> None:
    lease = Lease("a", 3, 1500)
    assert Lease.decode(lease.encode()) == lease
    pointer = Pointer.after(None, 1, "a")
    assert Pointer.decode(pointer.encode()) == pointer
    change = Change.of("x", np.array([0.5, 1.5], np.float32), "text")
    assert Change.decode(change.encode()) == change
    assert np.frombuffer(change.vector, "<f4").tolist() == [0.5, 1.5]


def test_pointers_of_two_workers_differ_even_in_the_same_generation() -> None:
    old = Pointer.after(None, 1, "a")
    late, other = Pointer.after(old, 2, "a"), Pointer.after(old, 3, "b")
    assert late.generation == other.generation == 2
    assert late.snapshot != other.snapshot
    assert late.encode() != other.encode()
    assert late.previous == old.snapshot


def test_queue_keys_sort_by_number() -> None:
    assert queue_key(9) < queue_key(10) < queue_key(100)


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_seed_decides_the_same_every_time(fault: str) -> None:
    assert script(fault, 7) == script(fault, 7)
    points = {script(fault, seed).point for seed in range(200)}
    assert points == (set(FAULTS[fault]) or {None})


def test_a_pause_after_the_pointer_has_moved_is_no_fault() -> None:
    assert Point.MOVED not in FAULTS["pause-holder"]


def step(at_ms: int, worker: str, what: str, **facts: Any) -> dict[str, Any]:
    return {"at_ns": at_ms * 1_000_000, "worker": worker, "step": what, **facts}


def test_holdings_show_two_that_believe_in_the_lock_at_once() -> None:
    steps = [
        step(100, "a", "locked", token=1, expires_in_ms=50),
        step(110, "a", "pause", point="packed"),
        step(150, "b", "locked", token=2, expires_in_ms=50),
        step(170, "b", "done", token=2),
        step(180, "a", "awake", point="packed"),
        step(190, "a", "refused", token=1),
        step(200, "b", "locked", token=3, expires_in_ms=50),
        step(210, "b", "kill", point="uploaded"),
    ]
    first, second, third = holdings(steps[::-1], 100_000_000)
    assert (first.worker, first.locked_ns, first.expires_ns, first.ended_ns) == (
        "a",
        0,
        50_000_000,
        90_000_000,
    )
    assert (first.paused_ns, first.awake_ns, first.end) == (10_000_000, 80_000_000, "refused")
    assert (second.worker, second.token, second.end) == ("b", 2, "done")
    assert second.locked_ns < first.ended_ns
    assert (third.ended_ns, third.end) == (None, "killed")


def operation(id: int, action: Action, value: Any, phase: Phase, outcome: Fate = Fate.OK) -> Operation:
    return Operation(
        id=id,
        workload="set",
        process=0,
        session="s",
        entry="queue",
        action=action,
        key="c",
        value=value,
        level="default",
        phase=phase,
        invoked_ns=id,
        returned_ns=id,
        outcome=outcome,
    )


def test_lost_is_what_was_acknowledged_and_is_missing_at_the_end() -> None:
    history = [
        operation(0, Action.ADD, "x", Phase.WARMUP),
        operation(1, Action.ADD, "y", Phase.FAULT),
        operation(2, Action.ADD, "z", Phase.FAULT, Fate.UNKNOWN),
        operation(3, Action.GET_ALL, ["x", "y"], Phase.FAULT),
        operation(4, Action.GET_ALL, ["x"], Phase.FINAL),
    ]
    finding = lost(history)
    assert (finding.verdict, finding.checked, finding.count) == (Verdict.VIOLATION, 2, 1)
    assert finding.example == (1, 3, 4)
    assert "already found" in finding.detail
    assert lost([*history[:4], operation(4, Action.GET_ALL, ["x", "y"], Phase.FINAL)]).verdict is Verdict.OK


def test_without_a_final_read_nothing_is_concluded() -> None:
    assert lost([operation(0, Action.ADD, "x", Phase.WARMUP)]).verdict is Verdict.NOT_CHECKED


def test_only_the_condition_on_the_pointer_is_expected_to_hold() -> None:
    assert [expected(variant, "pause-holder") for variant in Variant] == [
        Verdict.VIOLATION,
        Verdict.VIOLATION,
        Verdict.OK,
    ]
    assert {expected(variant, "kill-holder") for variant in Variant} == {Verdict.OK}


def test_the_summary_counts_errors_apart_and_does_not_call_them_expected() -> None:
    facts = {"variant": "fenced", "fault": "pause-holder"}
    rows = summary(
        [
            {**facts, "lost": 0, "acknowledged": 9, "as_expected": True},
            {**facts, "error": "too slow"},
            {**facts, "fault": "none", "error": "too slow"},
        ]
    )
    assert [(row["runs"], row["errors"], row["as_expected"]) for row in rows] == [(1, 1, True), (0, 1, False)]
