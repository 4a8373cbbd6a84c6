"""What is done again and what is not, and evidence that survives on disk. No run is made here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluation.checking.log import LogEntry, LogEvidence
from evaluation.history import write_history
from evaluation.record import RunRecord
from evaluation.run import campaign
from evaluation.run.campaign import Outline
from evaluation.run.evidence import load_evidence, save_evidence
from evaluation.run.matrix import Cell, Result

if TYPE_CHECKING:
    from pathlib import Path


def save_run(folder: Path, *, error: str = "") -> None:
    record = RunRecord(
        system="single",
        fault="kill-all",
        workloads=["register"],
        seed=1,
        command="chroma-cluster evaluate",
        started_at="2026-01-01T00:00:00+00:00",
        error=error,
    )
    record.save(folder)
    write_history(folder / "history.jsonl", [])


def test_a_run_that_is_saved_and_judged_is_finished(tmp_path: Path) -> None:
    folder = tmp_path / "single" / "kill-all" / "1"
    assert campaign.finished(folder, ["register"]) is None
    save_run(folder)
    assert campaign.finished(folder, ["register"]) is None
    assert campaign.judge(folder) is not None
    finished = campaign.finished(folder, ["register"])
    assert finished is not None
    assert finished.result is Result.OK
    assert list(campaign.saved(tmp_path)) == [(Cell("single", "kill-all", 1), folder)]
    # Of another question it is no answer.
    assert campaign.finished(folder, ["register", "set"]) is None


def test_a_run_in_error_is_done_again(tmp_path: Path) -> None:
    save_run(tmp_path)
    campaign.judge(tmp_path)
    save_run(tmp_path, error="warm-up: too slow")
    assert campaign.finished(tmp_path, ["register"]) is None
    assert campaign.judge(tmp_path) is None
    assert not (tmp_path / "verdict.json").exists()


def test_a_damaged_run_is_done_again(tmp_path: Path) -> None:
    save_run(tmp_path)
    campaign.judge(tmp_path)
    (tmp_path / "verdict.json").write_text("{")
    assert campaign.finished(tmp_path, ["register"]) is None


def test_the_command_repeats_what_was_asked_for() -> None:
    outline = Outline(("single",), ("kill-all",), (3, 4), ("register",), minutes=2.5)
    assert campaign.command(outline) == (
        "chroma-cluster evaluate --systems single --faults kill-all --seed 3 --seeds 2"
        " --workloads register --minutes 2.5"
    )


def test_evidence_survives_on_disk(tmp_path: Path) -> None:
    assert load_evidence(tmp_path / "log.json") is None
    evidence = LogEvidence({"node-1": [LogEntry(1, 1, ()), LogEntry(2, 1, ("a", "b"))], "node-2": []})
    save_evidence(evidence, tmp_path / "log.json")
    assert load_evidence(tmp_path / "log.json") == evidence
