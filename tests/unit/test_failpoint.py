"""Failpoints: the list is the truth, the variable is judged at the start, and unarmed points do nothing."""

from __future__ import annotations

import ast
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cluster import failpoint as module
from cluster.failpoint import NAMES, VARIABLE, arm, failpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
REACH = """
import os, sys
from cluster.failpoint import arm, failpoint
arm(os.environ)
for turn in range(1, 5):
    print(turn, flush=True)
    failpoint("api.decoded")
"""


@pytest.fixture(autouse=True)
def _unarmed() -> Iterator[None]:
    yield
    arm({})


def calls() -> list[str]:
    """The argument of every call of `failpoint` in the packages that run in a cluster."""
    found: list[str] = []
    for folder in ("cluster", "lb", "wire"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "failpoint":
                    [name] = node.args
                    assert isinstance(name, ast.Constant), f"{path.name}:{node.lineno}: not a literal"
                    found.append(str(name.value))
    return found


def test_what_is_listed_is_called_once_and_what_is_called_is_listed() -> None:
    assert Counter(calls()) == dict.fromkeys(NAMES, 1)


def test_the_documents_list_every_point_in_its_order() -> None:
    section = (ROOT / "docs/raft.md").read_text().partition("\n## Failpoints\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z_.]+)` \| (.+) \|$", section, re.MULTILINE)
    assert rows == list(NAMES.items())


def reach(value: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", REACH],
        env={VARIABLE: value},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_kills_its_own_process_at_that_reach_and_says_so() -> None:
    done = reach("api.decoded=kill:3")
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "1\n2\n3\n")
    assert re.fullmatch(r"failpoint api\.decoded: SIGKILL to process \d+\n", done.stderr)


def test_other_points_are_not_touched() -> None:
    assert reach("api.before_answer=kill:1").stdout == "1\n2\n3\n4\n"


def test_counts_only_while_the_file_exists(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    value = f"api.decoded=kill:1@{gate}"
    assert reach(value).returncode == 0
    gate.touch()
    assert reach(value).returncode == -signal.SIGKILL


def test_a_pause_holds_up_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(module.time, "sleep", slept.append)
    arm({VARIABLE: "api.decoded=pause:250; api.before_answer=pause:1"})
    failpoint("api.decoded")
    failpoint("journal.before_write")
    assert slept == [0.25]


def test_a_pause_ends_when_its_file_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, looks = tmp_path / "gate", 0

    def sleep(seconds: float) -> None:
        nonlocal looks
        looks += 1
        assert seconds < 1
        if looks == 3:
            gate.unlink()

    monkeypatch.setattr(module.time, "sleep", sleep)
    arm({VARIABLE: f"api.decoded=pause:3600000@{gate}"})
    failpoint("api.decoded")
    assert looks == 0, "the file is not there"
    gate.touch()
    failpoint("api.decoded")
    assert looks == 3


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no.such=kill:1", "unknown name 'no.such'; known are: forward.before_send, api.decoded"),
        ("api.decoded", "expected NAME=kill:N or NAME=pause:MS"),
        ("api.decoded=kill", "expected NAME=kill:N"),
        ("api.decoded=kill:0", "expected NAME=kill:N"),
        ("api.decoded=kill:-1", "expected NAME=kill:N"),
        ("api.decoded=stop:1", "expected NAME=kill:N"),
        ("api.decoded=kill:1@", "expected NAME=kill:N"),
        ("api.decoded=kill:1;", "unknown name ''"),
        ("api.decoded=kill:1;api.decoded=pause:2", "'api.decoded' twice"),
    ],
)
def test_what_makes_no_sense_is_refused(value: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        arm({VARIABLE: value})
    assert VARIABLE in str(refused.value)


def test_a_node_with_an_unknown_point_does_not_start(tmp_path: Path) -> None:
    data = tmp_path / "node"
    flags = ["--id", "n", "--cluster-id", "c", "--data-dir", str(data)]
    flags += ["--http", "127.0.0.1:1", "--raft", "127.0.0.1:2"]
    done = subprocess.run(
        [sys.executable, "-m", "cluster", "node", *flags],
        env={VARIABLE: "no.such=kill:1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "cannot run" in done.stderr
    assert "unknown name 'no.such'" in " ".join(done.stderr.split())
    assert not data.exists()
