"""The file size limit of another process, ours and another user's."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from evaluation.limits import UNLIMITED, file_size_limits, limit_file_size
from evaluation.systems.postgres.programs import run_as

OTHER = run_as()


@pytest.mark.parametrize(
    "uid",
    [
        None,
        pytest.param(OTHER, marks=pytest.mark.skipif(OTHER is None, reason="only root has other users")),
    ],
)
def test_limits_are_set_and_lifted(uid: int | None) -> None:
    sleeper = subprocess.Popen(["sleep", "60"], user=uid, group=uid, cwd="/")
    try:
        assert os.stat(f"/proc/{sleeper.pid}").st_uid == (os.geteuid() if uid is None else uid)
        before, hard = file_size_limits(sleeper.pid)
        limit_file_size(sleeper.pid, 4096)
        assert file_size_limits(sleeper.pid) == (4096, hard)
        limit_file_size(sleeper.pid, before)
        assert file_size_limits(sleeper.pid) == (before, hard)
    finally:
        sleeper.kill()
        sleeper.wait()
    with pytest.raises(ProcessLookupError):
        limit_file_size(sleeper.pid, UNLIMITED)


def test_an_unknown_process() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with pytest.raises(ProcessLookupError):
        file_size_limits(gone.pid)
