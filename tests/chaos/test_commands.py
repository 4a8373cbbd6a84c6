"""The commands on one real run: evaluate, resume, judge again, report."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cluster", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def test_a_run_is_made_once_judged_again_and_reported(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    asked = ["evaluate", "--systems", "single", "--faults", "kill-all", "--seed", "5"]
    asked += ["--workloads", "register,set", "--out", str(out)]
    first = command(*asked)
    assert first.returncode == 0, first.stdout + first.stderr
    folder = out / "single" / "kill-all" / "5"
    record = json.loads((folder / "run.json").read_text())
    assert record["error"] == ""
    assert record["command"] == (
        "chroma-cluster evaluate --systems single --faults kill-all --seed 5 --seeds 1"
        " --workloads register,set"
    )
    # One process was killed: nothing was answered, and all that had been acknowledged is there.
    assert record["measured"]["operations"].get("fault.unknown", 0) > 0
    assert record["measured"]["operations"]["final.ok"] > 0
    kinds = [event["kind"] for event in record["events"]]
    assert kinds.index("fault-begin") < kinds.index("fault-end")
    history = (folder / "history.jsonl").read_text().splitlines()
    assert {json.loads(line)["workload"] for line in history} == {"register", "set"}

    before = (folder / "history.jsonl").stat().st_mtime_ns
    again = command(*asked)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "1 of 1 runs are there already" in again.stdout
    assert (folder / "history.jsonl").stat().st_mtime_ns == before

    verdict = (folder / "verdict.json").read_bytes()
    (folder / "verdict.json").unlink()
    judged = command("judge", str(out))
    assert judged.returncode == 0, judged.stdout + judged.stderr
    assert (folder / "verdict.json").read_bytes() == verdict

    reported = command("report", str(out), "--out", str(tmp_path / "report"))
    assert reported.returncode == 0, reported.stdout + reported.stderr
    assert "kill-all" in (tmp_path / "report" / "index.html").read_text()
