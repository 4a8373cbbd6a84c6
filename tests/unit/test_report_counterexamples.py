"""Counter-examples: the order of all beginnings and ends is drawn exactly, labels fit, texts are escaped."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from itertools import pairwise, permutations
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from evaluation.history import Action, Fate, Operation, Phase
from evaluation.report.counterexamples import clearest, examples_of
from evaluation.report.drawing import in_words, to_svg
from evaluation.report.lanes import CHARACTER, LABEL_PX, Bar, describe, lay_out, shorten, show
from evaluation.report.runs import load
from evaluation.report.standing import Standing
from evaluation.report.telling import chosen, spans
from tests.unit import report_runs

if TYPE_CHECKING:
    from pathlib import Path


def operation(number: int, begin: int, end: int | None, process: int = 0, **more: object) -> Operation:
    base = Operation(
        id=number,
        workload="register",
        process=process,
        session=f"s{process}",
        entry="lb",
        action=Action.UPSERT,
        key="doc-1",
        value=f"value-{number}",
        level="default",
        phase=Phase.FAULT,
        invoked_ns=begin,
        returned_ns=end,
        outcome=Fate.OK if end is not None else Fate.UNKNOWN,
    )
    return replace(base, **more)  # type: ignore[arg-type]


def random_operations(seed: int) -> list[Operation]:
    """Several clients, each one operation at a time; some without an answer."""
    rng = random.Random(seed)
    operations: list[Operation] = []
    for process in range(rng.randrange(1, 4)):
        now = rng.randrange(50)
        for _ in range(rng.randrange(1, 4)):
            end = now + rng.randrange(1, 40)
            unknown = rng.random() < 0.2
            operations.append(operation(len(operations), now, None if unknown else end, process))
            now = end + rng.randrange(1, 30)
            if unknown:
                break
    return operations


def end_of(bar: Bar) -> float:
    return float("inf") if bar.operation.returned_ns is None else bar.operation.returned_ns


@pytest.mark.parametrize("seed", range(40))
def test_order_and_overlap_are_those_of_the_history(seed: int) -> None:
    layout = lay_out(random_operations(seed))
    for one, other in permutations(layout.bars, 2):
        assert (one.left < other.left) == (one.operation.invoked_ns < other.operation.invoked_ns)
        if end_of(one) < other.operation.invoked_ns:
            assert one.right < other.left
        if end_of(one) > other.operation.invoked_ns:
            assert one.right > other.left


@pytest.mark.parametrize("seed", range(40))
def test_labels_fit_into_their_bars_and_bars_of_a_lane_do_not_touch(seed: int) -> None:
    layout = lay_out(random_operations(seed))
    for bar in layout.bars:
        assert bar.right - bar.left >= max(len(bar.label), len(bar.when)) * CHARACTER * LABEL_PX
        assert bar.right <= layout.width
    for lane in range(len(layout.lanes)):
        for left, right in pairwise(
            sorted((bar for bar in layout.bars if bar.lane == lane), key=lambda bar: bar.left)
        ):
            assert left.right < right.left


def test_an_operation_without_an_answer_is_open_to_the_right_edge() -> None:
    layout = lay_out([operation(0, 10, None), operation(1, 20, 30, 1)])
    assert [bar.open_ended for bar in layout.bars] == [True, False]
    assert layout.bars[0].right == layout.width
    assert layout.bars[0].label.endswith("(no answer)")


def test_an_answer_that_settles_nothing_is_open_too() -> None:
    layout = lay_out([operation(0, 10, 20, outcome=Fate.UNKNOWN, status=504)])
    assert layout.bars[0].open_ended


def test_long_examples_keep_their_beginning_and_end() -> None:
    layout = lay_out([operation(number, number * 10, number * 10 + 5) for number in range(30)], most=6)
    assert [bar.operation.id for bar in layout.bars] == [0, 1, 2, 27, 28, 29]
    assert layout.omitted == 24
    assert "24 requests in the middle are left out" in to_svg(layout)


def test_labels_say_what_was_asked_and_answered() -> None:
    assert describe(operation(0, 0, 1, value="a")) == "upsert doc-1 = a"
    assert describe(operation(0, 0, 1, action=Action.GET, value="a")) == "get doc-1 → a"
    assert describe(operation(0, 0, 1, action=Action.GET, value=None)) == "get doc-1 → nothing"
    assert describe(operation(0, 0, 1, action=Action.DELETE, value=None)) == "delete doc-1"
    assert describe(operation(0, 0, 1, value="a", outcome=Fate.REFUSED)) == "upsert doc-1 = a (refused)"
    assert show(["a", "b"]) == "[a, b]"
    assert show([str(number) for number in range(9)]) == "[0, … 9 in all]"
    assert [show(True), show(7)] == ["yes", "7"]


def test_long_values_keep_both_ends() -> None:
    assert shorten("x" * 40 + "end", 10) == "xxxxx…xend"
    assert shorten("short", 10) == "short"


HOSTILE = "</text><script>alert(1)</script>&\"'"


def test_hostile_texts_are_escaped_and_the_drawing_is_well_formed() -> None:
    layout = lay_out(
        [operation(0, 0, 1, key=HOSTILE, value=HOSTILE, session=HOSTILE, entry=HOSTILE, node=HOSTILE)]
    )
    svg = to_svg(layout)
    assert "<script" not in svg
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert not re.findall(r'(?:href|src)="', svg)


def test_a_finding_is_drawn_and_told(tmp_path: Path) -> None:
    report_runs.losing_run().write(tmp_path)
    run = load(tmp_path).runs[0]
    examples = examples_of(run, {one.id: one for one in run.operations})
    lost = next(one for one in examples if one.property == "lost")
    assert lost.standing is Standing.ANOMALY
    assert lost.detail
    assert ElementTree.fromstring(lost.svg).tag.endswith("svg")
    assert len(lost.words) == lost.size >= 2


def test_an_example_whose_operations_are_gone_is_told_without_a_drawing(tmp_path: Path) -> None:
    folder = report_runs.losing_run().write(tmp_path)
    (folder / "history.jsonl").write_bytes(b"")
    run = load(tmp_path).runs[0]
    assert {(one.svg, one.size) for one in examples_of(run, {})} == {("", 0)}


def test_the_clearest_of_each_kind_is_the_smallest_and_broken_promises_come_first(tmp_path: Path) -> None:
    for system in ("naive-lww", "cluster"):
        for seed in (1, 2):
            report_runs.losing_run(system, seed).write(tmp_path)
    found = [
        example
        for run in load(tmp_path).runs
        for example in examples_of(run, {one.id: one for one in run.operations})
    ]
    best = clearest(found)
    kinds = [(one.system, one.property) for one in best]
    assert len(kinds) == len(set(kinds))
    assert best[0].system == "cluster"
    for one in best:
        assert one.size == min(
            each.size for each in found if (each.system, each.property) == (one.system, one.property)
        )
    few = chosen(best, 3)
    assert len(few) == 3
    assert len({one.property for one in few}) == 3


def test_words_name_client_time_and_answer() -> None:
    words = in_words(
        lay_out([operation(0, 1_500_000_000, 1_502_000_000), operation(1, 2_000_000_000, None, 1)])
    )
    assert words[0].startswith(
        "1.500 s: client 0 (session s0) at lb: upsert doc-1 = value-0; answered at 1.502 s"
    )
    assert words[1].endswith("no answer is known.")


def test_spans_of_seeds() -> None:
    assert spans([1, 2, 3, 7, 9, 10]) == "1-3, 7, 9-10"
    assert spans([]) == ""
