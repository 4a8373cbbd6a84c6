"""Cells merged over seeds, and the numbers in them: a missing number is a dash, never a zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from evaluation.report.cells import MergedCell, stale_faults, stale_reads
from evaluation.report.matrices import METRICS, matrix_of
from evaluation.report.measures import Measures, read_measures
from evaluation.report.numbers import NEVER, duration, percent, ratio, significant, size, whole
from evaluation.report.runs import Evaluation, load
from evaluation.report.standing import Standing
from tests.unit import report_runs

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (None, "\N{EN DASH}"),
        (NEVER, "never"),
        (0.0, "0.0 ms"),
        (9.94, "9.9 ms"),
        (12.3, "12 ms"),
        (994, "994 ms"),
        (1000, "1.0 s"),
        (9_940, "9.9 s"),
        (61_000, "61 s"),
    ],
)
def test_durations(ms: float | None, text: str) -> None:
    assert duration(ms) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "\N{EN DASH}"), (0, "0 %"), (1, "100 %"), (0.9999, "99.9 %"), (0.8251, "82.5 %")],
)
def test_a_gap_is_never_rounded_away(value: float | None, text: str) -> None:
    assert percent(value) == text


def test_other_numbers() -> None:
    assert [whole(None), whole(0), whole(12345.0)] == ["\N{EN DASH}", "0", "12,345"]
    assert [significant(None), significant(1.23), significant(123.4), significant(12345)] == [
        "\N{EN DASH}",
        "1.2",
        "123",
        "12,340",
    ]
    assert [size(None), size(12), size(2048), size(3 * 2**30)] == [
        "\N{EN DASH}",
        "12 B",
        "2.0 KiB",
        "3.0 GiB",
    ]
    assert [ratio(None), ratio(0.5)] == ["\N{EN DASH}", "0.50 x"]


def availability(during: float | None, ok: list[int], failed: list[int]) -> dict[str, Any]:
    one = {"ok": ok, "failed": failed, "before": 1.0, "during": during, "after": 1.0}
    return {"fault_begin_ms": 1000.0, "fault_end_ms": 3000.0, "sides": {"minority": {"write": one}}}


def test_no_success_is_never_and_no_request_is_missing() -> None:
    raw = {
        "availability": availability(0.0, [0], [7]),
        "first_success_after_fault_ms": {"minority": {"write": None}},
        "first_success_after_heal_ms": {"minority": {"write": 12.0}},
    }
    side = read_measures(raw).sides["minority"]
    assert (side.available["write"], side.after_fault_ms["write"], side.after_heal_ms["write"]) == (
        0,
        NEVER,
        12,
    )
    raw["availability"] = availability(0.0, [0], [0])
    assert read_measures(raw).sides == {}


def test_a_first_success_after_the_fault_does_not_count_as_within_it() -> None:
    raw = {
        "availability": availability(0.0, [1], [7]),
        "first_success_after_fault_ms": {"minority": {"write": 2400.0}},
    }
    assert read_measures(raw).sides["minority"].after_fault_ms["write"] == NEVER


def test_measures_of_an_old_or_empty_verdict_are_missing() -> None:
    measures = read_measures({})
    assert (measures.sides, measures.latency, measures.curves, measures.stale) == ({}, {}, {}, {})


def test_a_matrix_shows_what_was_asked_for_and_never_run(tmp_path: Path) -> None:
    report_runs.good_run().write(tmp_path)
    (tmp_path / "matrix.json").write_text('{"systems": ["cluster", "single"], "faults": ["kill-all"]}')
    matrix = matrix_of(load(tmp_path))
    assert matrix.systems == ("cluster", "single")
    assert set(matrix.faults) == {"leader-isolated", "kill-all"}
    assert matrix.cell("single", "kill-all").standing is Standing.ABSENT
    for metric in METRICS:
        assert metric.text(matrix.cell("single", "kill-all")) == "\N{EN DASH}"
        assert metric.bad(matrix.cell("single", "kill-all")) < 0


def test_counts_are_added_over_seeds_and_the_worst_run_is_linked(tmp_path: Path) -> None:
    report_runs.good_run(1).write(tmp_path)
    report_runs.losing_run("cluster", 2).write(tmp_path)
    report_runs.losing_run("cluster", 3).write(tmp_path)
    cell = matrix_of(load(tmp_path)).cell("cluster", "leader-isolated")
    assert cell.count("lost") == 6
    assert cell.count("no such property") is None
    assert (cell.standing, cell.like_worst, cell.worst_run.seed) == (Standing.BROKEN, 2, "2")
    assert cell.properties()["lost"] is Standing.BROKEN
    assert cell.properties()["fractured"] is Standing.NOT_CHECKED


def test_metrics_of_a_judged_run(tmp_path: Path) -> None:
    report_runs.good_run().write(tmp_path)
    cell = matrix_of(load(tmp_path)).cell("cluster", "leader-isolated")
    text = {metric.id: metric.text(cell) for metric in METRICS}
    assert text["lost"] == "0"
    assert text["writes-minority"] == "0 %"
    first_ms = cell.measures[0].sides["majority"].after_fault_ms["write"]
    assert 900 < first_ms < 1300
    assert text["after-fault"] == duration(first_ms)
    assert text["write-p50-warmup"].endswith(" ms")


def test_an_empty_evaluation_has_an_empty_matrix(tmp_path: Path) -> None:
    matrix = matrix_of(Evaluation(tmp_path, []))
    assert (matrix.systems, matrix.faults, matrix.cells) == ((), (), {})


def test_staleness_is_told_at_each_level_of_a_system() -> None:
    one = MergedCell(
        "cluster",
        "bridge",
        [],
        [Measures({"session": 1, "linearizable": 0}, {"session": 5, "linearizable": 7})],
    )
    other = MergedCell(
        "cluster",
        "ring",
        [],
        [Measures({"session": 2, "linearizable": 0}, {"session": 5, "linearizable": 8})],
    )
    assert stale_reads([one, other]) == "linearizable: 0 of 15, session: 3 of 10"
    assert stale_faults([one, other]) == "linearizable: 0 of 2, session: 2 of 2"
    plain = MergedCell("single", "bridge", [], [Measures({"default": 3}, {"default": 1234})])
    assert [stale_reads([plain]), stale_faults([plain])] == ["3 of 1,234", "1 of 1"]
    assert stale_reads([MergedCell("single", "bridge", [])]) == stale_faults([]) == "\N{EN DASH}"
