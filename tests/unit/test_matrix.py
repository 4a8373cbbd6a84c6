"""Which runs there are, what each must show, and what a run means. No run is made here."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

from evaluation.checking.verdict import PROPERTIES, Finding, Judgement, Verdict
from evaluation.faulting.catalogue import FAULTS
from evaluation.history import Action, Fate, Operation, Phase
from evaluation.record import RunRecord
from evaluation.run import decisions, matrix
from evaluation.run.matrix import Cell, Result
from evaluation.run.observing import changes
from evaluation.run.plan import RunPlan, Timing
from evaluation.systems.catalogue import SYSTEMS
from evaluation.systems.interface import Entry, Observation, Promises

if TYPE_CHECKING:
    from collections.abc import Mapping

STRONG = Promises(
    durable=True,
    levels={"linearizable": "linearizable", "session": "session"},
    one_leader=True,
    converges=True,
    atomic_batches=True,
    available_majority=True,
)


def record(system: str, fault: str, promises: Promises, **more: Any) -> RunRecord:
    return RunRecord(
        system=system,
        fault=fault,
        workloads=["register"],
        seed=1,
        command="",
        started_at="",
        promises=asdict(promises),
        **more,
    )


def judgement(verdicts: Mapping[str, Verdict]) -> Judgement:
    return Judgement(
        tuple(Finding(name, verdicts.get(name, Verdict.OK), checked=1, count=1) for name in PROPERTIES)
    )


def write(entry: str, outcome: Fate, invoked_ms: int, returned_ms: int, phase: Phase) -> Operation:
    return Operation(
        id=0,
        workload="register",
        process=1,
        session="s",
        entry=entry,
        action=Action.UPSERT,
        key="r-0",
        value="v",
        level="applied",
        phase=phase,
        invoked_ns=invoked_ms * 1_000_000,
        returned_ns=returned_ms * 1_000_000,
        outcome=outcome,
    )


def test_all_names_exist() -> None:
    for system, fault in matrix.ESSENCE:
        assert system in SYSTEMS
        assert fault in FAULTS
        assert FAULTS[fault].applies_to(SYSTEMS[system]()), (system, fault)
    for each in matrix.CONVICTIONS:
        assert each.system in SYSTEMS
        assert set(each.any_of) <= PROPERTIES.keys()
        for fault in each.faults:
            assert FAULTS[fault].applies_to(SYSTEMS[each.system]()), (each.system, fault)


def test_every_weak_system_has_a_conviction_in_the_essence() -> None:
    weak = {each.system for each in matrix.CONVICTIONS}
    shown = {system for system, fault in matrix.ESSENCE if matrix.convictions_of(system, fault)}
    assert shown == weak


def test_the_essence_comes_first_and_then_the_next_seed() -> None:
    systems, faults = ["single", "cluster", "naive-lww"], ["latency-5", "kill-all", "leader-isolated"]
    cells = matrix.cells(systems, faults, [7, 8], lambda system, fault: fault != "latency-5")
    assert cells[:2] == [Cell("cluster", "leader-isolated", 7), Cell("cluster", "kill-all", 7)]
    assert [cell.seed for cell in cells] == [7] * 6 + [8] * 6
    quick = matrix.cells(systems, faults, [7], lambda system, fault: True, essence_only=True)
    assert {(cell.system, cell.fault) for cell in quick} <= set(matrix.ESSENCE)
    assert Cell("single", "kill-all", 7).path == "single/kill-all/7"


def test_a_broken_promise() -> None:
    run = record("cluster", "leader-isolated", STRONG)
    found = matrix.conclude(run, judgement({"lost": Verdict.VIOLATION}))
    assert found.result is Result.BROKEN
    assert found.reasons[0].startswith("lost: 1")
    assert matrix.conclude(run, judgement({})).result is Result.OK


def test_what_was_never_promised_is_an_anomaly() -> None:
    run = record("single", "kill-all", Promises(durable=True))
    assert matrix.conclude(run, judgement({"linearizable": Verdict.VIOLATION})).result is Result.ANOMALY


def test_not_checked_and_undecided_are_not_ok() -> None:
    run = record("cluster", "leader-isolated", STRONG)
    assert matrix.conclude(run, judgement({"linearizable": Verdict.UNKNOWN})).result is Result.UNKNOWN
    assert matrix.conclude(run, None).result is Result.UNKNOWN


def test_a_weak_system_must_be_convicted() -> None:
    run = record("naive-lww", "minority-isolated", Promises())
    assert matrix.conclude(run, judgement({})).result is Result.UNCONVICTED
    assert matrix.conclude(run, judgement({"linearizable": Verdict.VIOLATION})).result is Result.UNCONVICTED
    assert matrix.conclude(run, judgement({"lost": Verdict.VIOLATION})).result is Result.CONVICTED


def test_a_systems_own_errors_convict_it() -> None:
    run = record("shared-dir", "kill-follower", Promises())
    assert matrix.conclude(run, judgement({})).result is Result.UNCONVICTED
    run.measured["system_errors"] = {"locked": 0, "crashes": 3}
    assert matrix.conclude(run, judgement({})).result is Result.UNCONVICTED
    run.measured["system_errors"] = {"locked": 2}
    assert matrix.conclude(run, judgement({})).result is Result.CONVICTED


def test_an_error_outweighs_findings() -> None:
    run = record("naive-lww", "minority-isolated", Promises(), error="warm-up: too slow\nmore")
    found = matrix.conclude(run, judgement({"lost": Verdict.VIOLATION}))
    assert (found.result, found.reasons) == (Result.ERROR, ("warm-up: too slow",))


@pytest.mark.parametrize(
    ("measured", "broken"),
    [
        ({"recovery_ms": {"lb": 20.0, "node-1": 4999.0}}, False),
        ({"recovery_ms": {"lb": 20.0, "node-1": 5001.0}}, True),
        ({"recovery_ms": {"lb": None}}, True),
        ({"recovery_ms": {}, "health_after": "node-1 is behind"}, True),
    ],
)
def test_who_promises_to_be_available_recovers_in_time(measured: dict[str, Any], broken: bool) -> None:
    run = record("cluster", "leader-isolated", STRONG, measured=measured)
    assert matrix.conclude(run, judgement({})).result is (Result.BROKEN if broken else Result.OK)
    other = record("naive-lww", "kill-all", Promises(available_majority=True), measured=measured)
    slow = measured["recovery_ms"].get("node-1", 0) > 5000
    assert matrix.conclude(other, judgement({})).result is (
        Result.BROKEN if broken and not slow else Result.OK
    )
    weak = record("single", "kill-all", Promises(), measured=measured)
    assert matrix.conclude(weak, judgement({})).result is Result.OK


def test_a_tool_that_goes_on_slowing_a_member_excuses_a_late_recovery_but_not_none() -> None:
    slowed = {"slowed": "libfaketime stays loaded"}
    late = record("cluster", "clock-step", STRONG, measured={"recovery_ms": {"lb": 9000.0}})
    assert matrix.conclude(late, judgement({})).result is Result.BROKEN
    late.fault_detail = slowed
    assert matrix.conclude(late, judgement({})).result is Result.OK
    late.measured["recovery_ms"] = {"lb": None}
    assert matrix.conclude(late, judgement({})).result is Result.BROKEN


def test_what_only_the_fault_could_see_breaks_a_promise_too() -> None:
    run = record("cluster", "silent-corruption", STRONG)
    run.fault_detail = {"broken": []}
    assert matrix.conclude(run, judgement({})).result is Result.OK
    run.fault_detail = {"broken": ["node-2 served what is wrong after the alarm"]}
    found = matrix.conclude(run, judgement({}))
    assert (found.result, found.reasons) == (
        Result.BROKEN,
        ("node-2 served what is wrong after the alarm",),
    )


def test_exit_codes() -> None:
    assert matrix.exit_code([]) == 0
    assert matrix.exit_code([Result.OK, Result.CONVICTED, Result.ANOMALY]) == 0
    assert matrix.exit_code([Result.OK, Result.UNKNOWN]) == 2
    assert matrix.exit_code([Result.ERROR, Result.UNCONVICTED]) == 1
    assert matrix.worst([Result.OK, Result.UNCONVICTED, Result.ERROR]) is Result.UNCONVICTED


def test_a_minority_that_refuses_in_time_or_not() -> None:
    run = record("cluster", "leader-isolated", STRONG, measured={"fault_applied_ns": 10_000_000_000})
    run.entries = [
        {"name": "lb", "member": None, "side": "majority"},
        {"name": "node-1", "member": "node-1", "side": "minority"},
    ]
    fault = Phase.FAULT
    operations = [
        write("lb", Fate.REFUSED, 10_100, 10_200, fault),
        write("node-1", Fate.OK, 9_900, 10_050, fault),
        write("node-1", Fate.REFUSED, 10_500, 12_000, fault),
        write("node-1", Fate.REFUSED, 12_500, 12_600, fault),
    ]
    assert matrix.late_refusals(run, operations, 4000) == ({"node-1": 2000.0}, [])
    late = write("node-1", Fate.OK, 14_100, 14_200, fault)
    assert matrix.late_refusals(run, [late], 4000) == ({"node-1": None}, [late])


def test_the_floor_of_the_warm_up() -> None:
    plan = RunPlan("single", "kill-all", 1, workloads=("register",))
    timing = Timing(warmup_s=1.0, floor_per_second=3)
    ok = write("lb", Fate.OK, 1, 2, Phase.WARMUP)
    refused = write("lb", Fate.REFUSED, 1, 2, Phase.WARMUP)
    assert decisions.below_floor([ok] * 3, [ok] * 3, plan, timing) == ""
    assert "2 operations a second" in decisions.below_floor([ok, ok, refused], [ok], plan, timing)
    assert decisions.below_floor([refused], [refused], plan, timing).startswith("no successful operation")


def test_what_is_read_in_the_end() -> None:
    levels = ("linearizable", "session", "eventual")
    assert decisions.final_levels(levels, None) == ("linearizable",)
    assert decisions.final_levels(levels, "node-1") == ("linearizable", "eventual")
    assert decisions.final_levels(("default",), "pg-1") == ("default",)


def test_where_an_entrys_clients_stand() -> None:
    sides = {"node-1": "minority", "client@node-1": "minority", "balancer": "majority"}
    assert decisions.side_of(Entry("lb", ""), sides) == "majority"
    assert decisions.side_of(Entry("node-1", "", "node-1"), sides) == "minority"
    assert decisions.side_of(Entry("node-2", "", "node-2"), sides) == "all"


def test_first_writes_by_entry() -> None:
    operations = [
        write("lb", Fate.UNKNOWN, 1, 2, Phase.HEALED),
        write("lb", Fate.OK, 3, 9, Phase.HEALED),
        write("lb", Fate.OK, 4, 6, Phase.HEALED),
    ]
    assert decisions.first_writes(operations) == {"lb": 6_000_000}


def test_only_changes_become_events() -> None:
    follower = Observation("node-1", 5_000, "follower", term=1)
    leader = Observation("node-1", 6_000, "leader", term=2)
    ill = Observation("node-1", 7_000, "leader", term=2, healthy=False, detail="disk full")
    assert [event.kind for event in changes(None, follower, 1_000)] == ["role"]
    assert list(changes(follower, follower, 0)) == []
    (elected,) = changes(follower, leader, 1_000)
    assert (elected.kind, elected.term, elected.at_ns) == ("leader", 2, 5_000)
    (told,) = changes(leader, ill, 0)
    assert (told.kind, told.text) == ("health", "not healthy: disk full")
