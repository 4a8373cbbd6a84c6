"""Requests in windows, the figure of a run, the staleness figure, and which runs a document shows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from evaluation.history import Fate, Phase
from evaluation.report import curves, style, timeline
from evaluation.report.bins import binned
from evaluation.report.cells import cell_of
from evaluation.report.measures import Curve, Measures
from evaluation.report.names import SYSTEMS, applies, fault_words, in_order
from evaluation.report.runs import load
from evaluation.report.standing import Standing
from evaluation.report.telling import telling_runs
from evaluation.systems.catalogue import SYSTEMS as CATALOGUE
from tests.unit import report_runs

if TYPE_CHECKING:
    from pathlib import Path


def test_every_request_is_counted_once() -> None:
    operations = report_runs.good_run().operations
    counted = binned(operations, 100_000_000, report_runs.END)
    total = sum(
        sum(row) for bins in counted.values() for row in (bins.writes, bins.reads, bins.refused, bins.unknown)
    )
    assert total == len(operations)
    assert {len(bins.reads) for bins in counted.values()} == {140}


def test_answers_count_when_they_come_and_unknown_ones_when_they_were_asked() -> None:
    one = next(each for each in report_runs.good_run().operations if each.is_write)
    late = replace(one, invoked_ns=50, returned_ns=250, outcome=Fate.OK)
    lost = replace(one, invoked_ns=50, returned_ns=250, outcome=Fate.UNKNOWN)
    beyond = replace(one, invoked_ns=50, returned_ns=9_999, outcome=Fate.REFUSED)
    bins = binned([late, lost, beyond], 100, 300)[one.entry]
    assert (bins.writes, bins.unknown, bins.refused) == ([0, 0, 1], [1, 0, 0], [0, 0, 1])
    assert bins.slowest_ms[2] == pytest.approx(200 / 1e6)


def texts(figure: object) -> str:
    found = figure.findobj(lambda artist: hasattr(artist, "get_text"))  # type: ignore[attr-defined]
    return "\n".join(artist.get_text() for artist in found)


def test_a_timeline_names_entries_sides_leaders_and_its_window() -> None:
    run = report_runs.good_run()
    with style.styled():
        figure = timeline.draw(run.record, run.operations)
        assert figure is not None
        words = texts(figure)
        png = style.to_png(figure)
    for expected in ("lb\n(majority)", "node-1\n(minority)", "term 3", "term 4", "in each 100 ms"):
        assert expected in words
    assert png.startswith(b"\x89PNG")
    assert len(png) < 60_000


def test_final_reads_alone_are_no_timeline() -> None:
    run = report_runs.good_run()
    final = [one for one in run.operations if one.phase is Phase.FINAL]
    assert final
    assert timeline.draw(run.record, final) is None
    assert timeline.draw(run.record, []) is None


def test_a_run_that_broke_off_in_the_fault_is_drawn() -> None:
    run = report_runs.good_run()
    broken = replace(run.record, fault_end_ns=0, quiet_ns=0, end_ns=0, events=[], entries=[])
    before = [one for one in run.operations if one.invoked_ns < report_runs.FAULT_END]
    with style.styled():
        figure = timeline.draw(broken, before)
        assert figure is not None
        assert "no leader known" in texts(figure)


def curve(*points: tuple[float, int, int, int, int]) -> Measures:
    return Measures({"session": 3}, {"session": 10}, curves={"session": Curve(points)})


def test_curves_of_runs_are_added_by_counts() -> None:
    some, many = curve((0, 10, 5, 20, 6), (10, 10, 1, 10, 1)), curve((0, 90, 5, 100, 6))
    lines = curves.lines_of({("cluster", "session"): [some, many], ("cluster", "eventual"): []})
    assert lines[0].label == "cluster, session"
    assert lines[0].points == ((0, 100, 10, 120, 12), (10, 10, 1, 10, 1))
    assert (lines[0].reads, lines[0].stale) == (20, 6)


def test_systems_without_stale_reads_are_named_and_not_drawn() -> None:
    clean = replace(curve((0, 10, 0, 20, 0)), stale={"session": 0})
    with style.styled():
        figure = curves.draw(curves.lines_of({("a", "session"): [clean]}))
        assert figure is not None
        words = texts(figure)
    assert "a: none of 10 reads" in words
    assert "no read missed an acknowledged write" in words
    assert curves.draw([]) is None


def test_a_document_shows_a_run_a_group_and_none_in_error(tmp_path: Path) -> None:
    report_runs.good_run(1).write(tmp_path)
    report_runs.losing_run("cluster", 2).write(tmp_path)
    report_runs.error_run("naive-lww", "minority-isolated").write(tmp_path)
    report_runs.losing_run("naive-crdt", fault="minority-isolated").write(tmp_path)
    report_runs.losing_run("postgres-async", fault="latency-5").write(tmp_path)
    shown = telling_runs(load(tmp_path).runs)
    assert [(run.system, run.fault, run.seed) for run in shown] == [
        ("cluster", "leader-isolated", "2"),
        ("naive-crdt", "minority-isolated", "1"),
    ]


def test_every_system_of_the_catalogue_has_words() -> None:
    for name in CATALOGUE:
        assert name in SYSTEMS, name
    assert in_order(["zebra", "single", "cluster"]) == ["cluster", "single", "zebra"]
    assert all(fault_words().values())


def test_what_cannot_be_struck_is_not_the_same_as_not_run() -> None:
    assert not applies("single", "leader-isolated")
    assert applies("cluster", "leader-isolated")
    assert applies("somebody", "something")
    assert cell_of("single", "leader-isolated", [], applies=False).standing is Standing.INAPPLICABLE
    assert cell_of("cluster", "leader-isolated", []).standing is Standing.ABSENT
