"""How findings, runs and cells stand: a broken promise, an anomaly, not checked, error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from evaluation.checking.promised import promised
from evaluation.checking.verdict import PROPERTIES, Finding, Verdict
from evaluation.report.cells import cell_of
from evaluation.report.runs import load
from evaluation.report.standing import Standing, standing_of, worst
from tests.unit import report_runs

if TYPE_CHECKING:
    from pathlib import Path

ALL = report_runs.PROMISES["cluster"]
NONE: dict[str, object] = {}


@pytest.mark.parametrize("name", PROPERTIES)
def test_a_violation_is_red_where_it_was_promised_and_amber_where_not(name: str) -> None:
    finding = Finding(name, Verdict.VIOLATION, count=1)
    assert standing_of(finding, ALL) is Standing.BROKEN
    # An acknowledgement against the log is a defect of whoever has a log.
    expected = Standing.BROKEN if name == "log" else Standing.ANOMALY
    assert standing_of(finding, NONE) is expected


@pytest.mark.parametrize(
    ("levels", "linearizable", "session"),
    [
        ({"default": "none"}, False, False),
        ({"default": "eventual"}, False, False),
        ({"default": "session"}, False, True),
        ({"default": "linearizable"}, True, True),
        ({"a": "eventual", "b": "linearizable"}, True, True),
    ],
)
def test_what_read_levels_promise(levels: dict[str, str], linearizable: bool, session: bool) -> None:
    assert promised("linearizable", {"levels": levels}) is linearizable
    assert promised("read-your-writes", {"levels": levels}) is session


@pytest.mark.parametrize(
    ("verdict", "standing"),
    [
        (Verdict.OK, Standing.OK),
        (Verdict.UNKNOWN, Standing.UNKNOWN),
        (Verdict.NOT_CHECKED, Standing.NOT_CHECKED),
    ],
)
def test_other_verdicts_stand_for_themselves(verdict: Verdict, standing: Standing) -> None:
    assert standing_of(Finding("lost", verdict), ALL) is standing


def test_the_worst_one_counts_and_nothing_is_absent() -> None:
    assert worst([Standing.OK, Standing.ERROR, Standing.ANOMALY]) is Standing.ANOMALY
    assert worst([Standing.NOT_CHECKED, Standing.OK]) is Standing.OK
    assert worst([Standing.NOT_CHECKED, Standing.NOT_CHECKED]) is Standing.NOT_CHECKED
    assert worst([]) is Standing.ABSENT


def test_standings_differ_in_more_than_colour() -> None:
    assert len({standing.symbol for standing in Standing}) == len(Standing)
    assert len({standing.css for standing in Standing}) == len(Standing)
    assert all(standing.meaning for standing in Standing)


def test_a_run_in_which_nothing_was_checked_is_not_ok(tmp_path: Path) -> None:
    simulated = report_runs.good_run()
    simulated.judgement = report_runs.judgement()
    simulated.write(tmp_path)
    assert [run.standing for run in load(tmp_path).runs] == [Standing.NOT_CHECKED]


def test_a_run_without_a_verdict_is_not_ok(tmp_path: Path) -> None:
    simulated = report_runs.good_run()
    simulated.judgement = None
    simulated.write(tmp_path)
    assert [run.standing for run in load(tmp_path).runs] == [Standing.NOT_CHECKED]


def test_an_error_outweighs_the_findings_of_its_run(tmp_path: Path) -> None:
    simulated = report_runs.losing_run("cluster")
    simulated.record.error = "health after: node-2 does not answer"
    simulated.write(tmp_path)
    run = load(tmp_path).runs[0]
    cell = cell_of(run.system, run.fault, [run])
    assert cell.standing is Standing.ERROR
    assert cell.count("lost") is None
    assert cell.stale is None
    assert set(cell.properties().values()) == {Standing.ABSENT}


def test_damaged_files_are_errors_of_their_run_not_of_the_report(tmp_path: Path) -> None:
    for number, name in enumerate(("run.json", "verdict.json"), 1):
        folder = report_runs.good_run(number).write(tmp_path)
        (folder / name).write_text("{")
    missing = report_runs.good_run(3).write(tmp_path)
    (missing / "run.json").unlink()
    (tmp_path / "cost.json").write_text("[]")
    evaluation = load(tmp_path)
    assert [run.standing for run in evaluation.runs] == [Standing.ERROR] * 3
    assert "run.json is missing" in evaluation.runs[2].error
    assert evaluation.problems == ["cost.json: not an object"]


def test_a_missing_folder_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="chroma-cluster evaluate"):
        load(tmp_path / "none")
