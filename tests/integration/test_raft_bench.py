"""The log's benchmark does what it says, with little load and one failure of each kind."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from evaluation.raft.bench import TOXIPROXY

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


def test_the_benchmark_measures_and_loses_nothing(tmp_path: Path) -> None:
    failures = ["kill", "freeze"]
    if TOXIPROXY.is_file():  # built by `make toxiproxy` only
        failures.append("black-hole")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "evaluation.raft.bench"),
            *("--rounds", "1", "--scale", "0.01", "--loads", "16 x 2 KB", "1 x 16 MiB"),
            *("--trials", "1", "--failures", *failures),
            *("--timeout", "5", "--out", tmp_path / "figures.json"),
        ],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    ours = {name: by_system["ours"] for name, by_system in figures["latency"].items()}
    assert {name: each["commits"] for name, each in ours.items()} == {"16 x 2 KB": 40, "1 x 16 MiB": 1}
    assert figures["latency"]["16 x 2 KB"]["stock"]["commits"] == 40
    assert figures["failover"].keys() == set(failures)
    for failover in figures["failover"].values():
        assert len(failover["pauses_ms"]) == 1
        assert failover["acknowledged"] > 1
        assert failover["lost"] == 0
    assert "load average" in done.stdout


def test_without_toxiproxy_nothing_is_measured(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "evaluation.raft.bench", "--toxiproxy", tmp_path / "none"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "`make toxiproxy` builds it" in done.stderr
    assert done.stdout == ""
