"""One seed is one run: the same events at the same times, whatever the order of sets in a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.run import Failure, run_seed

ROOT = Path(__file__).parents[2]


def traces(hash_seed: str, *flags: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation.run", "--hash", *flags],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("nodes", ["3", "5", "7"])
def test_the_same_trace_under_other_hash_seeds(nodes: str) -> None:
    flags = ("--seed", "20", "--count", "2", "--seconds", "4", "--nodes", nodes)
    first = traces("1", *flags)
    assert first.count("trace ") == 2
    assert traces("2", *flags) == first


def test_another_seed_is_another_run() -> None:
    lines = traces("1", "--seed", "30", "--count", "3", "--seconds", "2").splitlines()
    assert len({line.split()[-1] for line in lines if "trace" in line}) == 3


def test_a_failure_says_how_to_repeat_it() -> None:
    failure = run_seed(1, nodes=3, mutation="ack-before-fsync", lines=30)
    assert isinstance(failure, Failure)
    assert "seed 1 (3 nodes" in failure.text
    assert "python -m tests.simulation.run --seed 1 --nodes 3 --mutation ack-before-fsync" in failure.text
    again = run_seed(1, nodes=3, mutation="ack-before-fsync", lines=30)
    assert again == failure
