"""The limit on file sizes of other processes, also where their user is not ours.

Root without CAP_SYS_RESOURCE, as in many containers, may not limit the processes of other users; these users
themselves may, within the hard limit. So what is not permitted here is done by `prlimit` as the owner.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from pathlib import Path
from typing import Final

UNLIMITED: Final = resource.RLIM_INFINITY
_LINE: Final = "Max file size"


def file_size_limits(pid: int) -> tuple[int, int]:
    """The soft and the hard limit.

    Raises:
        ProcessLookupError: there is no such process.
    """
    try:
        text = Path(f"/proc/{pid}/limits").read_text()
    except FileNotFoundError:
        raise ProcessLookupError(f"no process {pid}") from None
    line = next(line for line in text.splitlines() if line.startswith(_LINE))
    soft, hard = line.removeprefix(_LINE).split()[:2]
    return _number(soft), _number(hard)


def limit_file_size(pid: int, soft: int) -> None:
    """Set the soft limit.

    Raises:
        ProcessLookupError: there is no such process.
        PermissionError: neither we nor its owner may, or there is no `prlimit`.
    """
    _, hard = file_size_limits(pid)
    try:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))
    except PermissionError:
        _as_owner(pid, soft)


def _as_owner(pid: int, soft: int) -> None:
    program = shutil.which("prlimit")
    if program is None:
        raise PermissionError(f"the limits of process {pid} belong to another user, and there is no prlimit")
    try:
        owner = os.stat(f"/proc/{pid}").st_uid
    except FileNotFoundError:
        raise ProcessLookupError(f"no process {pid}") from None
    shown = "unlimited" if soft == UNLIMITED else str(soft)
    done = subprocess.run(
        [program, "--pid", str(pid), f"--fsize={shown}:"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        user=owner,
        group=owner,
        extra_groups=[],
        timeout=10,
    )
    if done.returncode:
        if not Path(f"/proc/{pid}").exists():
            raise ProcessLookupError(f"no process {pid}")
        raise PermissionError(f"prlimit on process {pid} as its owner: {done.stderr.strip()}")


def _number(text: str) -> int:
    return UNLIMITED if text == "unlimited" else int(text)
