"""Which collection is hidden after a failed call, and until when."""

from __future__ import annotations

from cluster.apply.veil import Veil
from cluster.state.commands import WriteRecords
from cluster.state.machine import Step
from cluster.state.work import Call, Target

WRITE = WriteRecords("add", "c", ("a",), None, None, None, None, None)
TARGET = Target("t", "d", "n", "c")


def step(index: int, position: int = 0, *, works: bool = True) -> Step:
    return Step(Call(WRITE, TARGET, index) if works else None, (), (), index, position, 1)


def test_a_collection_is_hidden_until_all_that_the_failed_call_covered_is_settled() -> None:
    told: list[str | None] = []
    veil = Veil(told.append, None)
    veil.failed(step(9))  # merged from three entries
    veil.failed(step(7))  # the first of them alone
    veil.finished(step(7), None)
    veil.finished(step(8, works=False), None)  # the second is refused by the cluster
    assert told == [None, "c"]
    veil.finished(step(9), None)
    assert told == [None, "c", None]


def test_within_an_entry_proposals_count() -> None:
    veil = Veil(lambda hidden: None, None)
    veil.failed(step(3, 2))
    veil.finished(step(3, 1), None)
    assert veil.hidden == "c"
    veil.finished(step(3, 2), None)
    assert veil.hidden is None


def test_what_is_half_written_is_hidden_from_the_start_and_after_a_failure() -> None:
    told: list[str | None] = []
    veil = Veil(told.append, "c")
    assert told == ["c"]
    veil.failed(step(3))  # a part in the middle
    veil.finished(step(3), "c")
    assert veil.hidden == "c"
    veil.finished(step(4), None)
    assert told == ["c", None]


def test_a_call_about_no_collection_hides_none() -> None:
    veil = Veil(lambda hidden: None, None)
    veil.failed(Step(Call(WRITE, None, 3), (), (), 3, 0, 1))
    veil.failed(step(3, works=False))
    assert veil.hidden is None
