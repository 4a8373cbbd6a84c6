"""The demo for real, without a terminal: it proves its claims, says so, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_the_demo_loses_nothing_and_cleans_up(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cluster", "demo", "--texts", "400"],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "TMPDIR": str(tmp_path), "COLUMNS": "100"},
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    for words in (
        "400 texts acknowledged",
        "none lost",
        "is gone",
        "identical, to the last bit",
        "Nothing was lost",
    ):
        assert words in said, said
    assert "\x1b" not in said
    assert list(tmp_path.iterdir()) == []
    assert (
        str(tmp_path)
        not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    )
