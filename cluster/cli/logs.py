"""The log file of a process: appended to, bounded, and its end for people to read."""

from __future__ import annotations

import contextlib
import os
from typing import IO, TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

TAIL_LINES: Final = 12
MAX_LOG_BYTES: Final = 64 * 1024 * 1024


def open_log(path: Path) -> IO[bytes]:
    """The log to append to; one that has grown too big becomes `.1` first."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > MAX_LOG_BYTES:
            os.replace(path, path.with_suffix(".log.1"))
    file = path.open("ab")
    file.seek(0, os.SEEK_END)
    return file


def log_tail(path: Path, start: int) -> str:
    """The last lines that were written to a log from byte `start` on."""
    try:
        with path.open("rb") as file:
            file.seek(max(start, path.stat().st_size - 16_384))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-TAIL_LINES:])
