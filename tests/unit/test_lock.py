"""One process a directory: the second is told who has it, and a killed holder leaves no trace."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cluster.errors import Fault
from cluster.lock import DirectoryLock

if TYPE_CHECKING:
    from pathlib import Path

HOLDER = """
import sys
from pathlib import Path
from cluster.lock import DirectoryLock
lock = DirectoryLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_the_second_is_refused_with_the_first_ones_process_id(tmp_path: Path) -> None:
    first = DirectoryLock(tmp_path / "node")
    with pytest.raises(Fault, match=f"in use by process {os.getpid()}"):
        DirectoryLock(tmp_path / "node")
    first.release()
    first.release()
    with DirectoryLock(tmp_path / "node"):
        assert (tmp_path / "node" / "LOCK").read_text() == f"{os.getpid()}\n"
    DirectoryLock(tmp_path / "node").release()


def test_a_killed_holder_gives_the_directory_free(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Fault, match=f"in use by process {holder.pid}"):
            DirectoryLock(tmp_path)
        holder.kill()
    DirectoryLock(tmp_path).release()


def test_a_path_that_is_no_directory_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(Fault, match="Cannot use the data directory"):
        DirectoryLock(tmp_path / "file")
