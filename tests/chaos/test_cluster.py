"""What the cluster promises, under every fault that can strike it.

A few faults belong to the default suite, all others are marked `chaos`. All use one cluster, one after the
other: each run begins and ends with a health check, has collections of its own, and is judged alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from evaluation.checking.verdict import Verdict
from evaluation.faulting.catalogue import FAULTS
from evaluation.history import Fate
from evaluation.run import matrix
from evaluation.run.matrix import Result
from evaluation.systems.cluster import ELECTION_TIMEOUT_MS, Cluster
from evaluation.traffic.answers import gave_up
from tests.chaos.theatre import Theatre

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.chaos.theatre import Judged

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DEFAULT = ("leader-isolated", "kill-leader", "pause-leader", "bridge", "one-way-out")
#: What every run's traffic is wide enough to show.
CHECKED = (
    "linearizable",
    "read-your-writes",
    "monotonic-reads",
    "monotonic-writes",
    "lost",
    "duplicated",
    "phantom",
    "resurrected",
    "lost-updates",
    "fractured",
    "diverged",
    "split-brain",
    "log",
)
#: Cuts that leave a minority which must notice it by itself.
CUT_OFF = ("leader-isolated", "leader-blackhole", "leader-refused", "minority-isolated")


@pytest.fixture(scope="module")
def theatre() -> Iterator[Theatre]:
    theatre = Theatre("cluster")
    yield theatre
    theatre.close()


def _faults() -> list[object]:
    fitting = [name for name, fault in FAULTS.items() if fault.applies_to(Cluster())]
    assert set(DEFAULT) <= set(fitting), "a fault of the default suite is gone: correct this test"
    rest = [name for name in fitting if name not in DEFAULT]
    return [*DEFAULT, *(pytest.param(name, marks=pytest.mark.chaos) for name in rest)]


@pytest.mark.parametrize("fault", _faults())
def test_the_cluster_keeps_its_promises(fault: str, theatre: Theatre, tmp_path: Path) -> None:
    judged = theatre.play(fault, tmp_path)
    assert judged.conclusion.result is Result.OK, judged.story()
    unchecked = {name: verdict for name, verdict in judged.verdicts().items() if verdict is not Verdict.OK}
    assert not unchecked.keys() & set(CHECKED), (unchecked, judged.story())
    if fault in CUT_OFF:
        bound_ms = 2 * ELECTION_TIMEOUT_MS
        first, taken = matrix.late_refusals(judged.record, judged.operations, bound_ms)
        assert first, judged.story()
        late = {entry: after for entry, after in first.items() if after is None or after > bound_ms}
        assert not late, (late, judged.story())
        assert not taken, (taken[:3], judged.story())
    _promised_besides(fault, judged)


def _promised_besides(fault: str, judged: Judged) -> None:
    """What a fault of the cluster's own kind is there to show; that nothing was broken has been judged."""
    detail = judged.record.fault_detail
    match fault:
        case "rolling-restart":
            assert detail["restarted"][-1].startswith("All 3 nodes were restarted"), judged.story()
            assert not _failed_at_the_balancer(judged), (_failed_at_the_balancer(judged), judged.story())
        case "replace-node":
            assert detail["by"] not in judged.record.members, judged.story()
        case "clock-step-filling":
            assert detail["jumps_while_filled"] > 0, judged.story()
            assert min(detail["first_entries"].values()) > 1, judged.story()
        case "disk-lost-leader" | "disk-lost-compacted":
            assert min(detail["first_entries"].values()) > 1, judged.story()
            assert detail["filled_s"] >= 0, judged.story()
        case "silent-corruption":
            assert detail["findings"], judged.story()
            assert detail["refused_after_alarm"] + detail["reads_after_alarm"] > 0, judged.story()
            assert detail["repaired_s"] > 0, judged.story()
        case "poison-entry":
            assert detail["answer"] == "500 ContainedWriteError", judged.story()
        case "hung-engine-leader" | "hung-engine-follower":
            assert detail["stopped"] > 1, judged.story()
            assert detail["replaced_after_s"], judged.story()
        case _:
            pass


def _failed_at_the_balancer(judged: Judged) -> list[str]:
    """What its clients were told while the fault lasted, where a request failed, or its connection broke."""
    record = judged.record
    return [
        f"{operation.action} of {operation.key}: {operation.outcome}, {operation.error}"
        for operation in judged.operations
        if operation.entry == "lb"
        and record.fault_begin_ns <= operation.invoked_ns <= record.fault_end_ns
        and operation.outcome is not Fate.OK
        # How long a client waits is no promise of ours; how long none was served is told by the report.
        and not gave_up(operation.error)
    ]
