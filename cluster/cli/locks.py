"""Who holds a lock file: a node its directory, an `up` or `down` the right to change what runs."""

from __future__ import annotations

import contextlib
import fcntl
import time
from typing import TYPE_CHECKING, Final

from cluster.cli.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from cluster.cli.layout import DataDirectory

LOCK_TIMEOUT_S: Final = 60.0
POLL_S: Final = 0.05


def lock_is_held(path: Path) -> bool:
    """Does some process hold this lock file?"""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # no such file; what cannot be read is reported by the node itself
    return False


def lock_holder(path: Path) -> str:
    """The pid that the holder of a node's lock file wrote into it."""
    try:
        return path.read_text(errors="replace").strip() or "unknown"
    except OSError:
        return "unknown"


@contextlib.contextmanager
def exclusive(directory: DataDirectory, *, timeout_s: float = LOCK_TIMEOUT_S) -> Generator[None]:
    """Only one `up` or `down` at a time changes what runs in this directory.

    Raises:
        StartError: another one has been at it for too long.
    """
    with directory.lock_file.open("ab") as file:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StartError(
                        f"Another `up` or `down` has been at work in {directory.root} for {timeout_s:.0f} s. "
                        "Nothing was changed. Wait for it, or stop it, and try again."
                    ) from None
                time.sleep(POLL_S)
        # Children must not inherit the lock: Python opens files close-on-exec.
        yield
