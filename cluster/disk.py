"""Whether a failure is that of a full disk, with the path and the free bytes; and when there is room again.

Chroma, SQLite and the system each word a full disk in their own way, Chroma only as "error in compaction":
so after a failure the file system itself is asked.
"""

from __future__ import annotations

import errno
import itertools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cluster.errors import Fault

if TYPE_CHECKING:
    from pathlib import Path

    from cluster.errors import ClusterError

MEBIBYTE: Final = 1024 * 1024

#: Bytes that are written to see whether that works, and of how many files at most the rights are looked at.
_PROBE: Final = 64 * 1024
_FILES: Final = 20_000
#: Surely about room.
_FULL: Final = ("no space left", "is full", "disk full", "quota exceeded")
#: What may be about room, if there is none.
_VAGUE: Final = ("compaction", "disk i/o", "cannot write", "could not be written", "failed to apply")


class DiskFull(Fault):
    """A fault that ends by itself: the node goes on once there is room."""


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes that this user may still write at `path`, and the size of the file system."""

    path: str
    free: int
    total: int

    @property
    def is_short(self) -> bool:
        """Whether a write of usual size may fail for want of room."""
        return self.free < min(32 * MEBIBYTE, self.total // 20)

    @property
    def is_enough(self) -> bool:
        """Whether to try again: well above what counts as short, so that it does not go back and forth."""
        return self.free >= min(64 * MEBIBYTE, self.total // 10)


def space_at(path: Path) -> Space | None:
    """How much room there is; None if that cannot be asked."""
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    return Space(str(path), found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)


def explained(fault: Fault, space: Space | None) -> Fault:
    """The fault, with a full disk as its cause if that is what it is."""
    if isinstance(fault, DiskFull):
        return fault
    text = fault.message.lower()
    is_sure = any(words in text for words in _FULL)
    if space is None or not (is_sure or any(words in text for words in _VAGUE)):
        return fault
    if space.is_short:
        return DiskFull(
            f"The disk is full: {space.free} bytes are free at {space.path}. What failed: {fault.message}"
        )
    if is_sure:
        return Fault(
            f"Writes fail as on a full disk, but {space.free} bytes are free at {space.path}: look at quotas "
            f"and limits on the size of files (`ulimit -f`). What failed: {fault.message}"
        )
    return fault


def machine_fault(failure: ClusterError, directory: Path) -> Fault | None:
    """What of this machine explains that Chroma failed, whatever its words are; None: nothing that is known.

    Asked before a write is suspected of it: what strikes the disks of all nodes at once is no write's doing.
    """
    space = space_at(directory)
    if space is not None and space.is_short:
        return DiskFull(
            f"The disk is full: {space.free} bytes are free at {space.path}. What failed: {failure.message}"
        )
    why = unwritable(directory)
    if why is None:
        return None
    return Fault(
        f"This node cannot write its data: {why}. Mend that, then restart the node. No log entry was "
        f"skipped. What failed: {failure.message}"
    )


def unwritable(directory: Path) -> str | None:
    """Why this process cannot write to a directory and the files under it at the moment; None if it can."""
    try:
        for path in itertools.islice(directory.rglob("*"), _FILES):
            if not os.access(path, os.W_OK) and path.exists():
                return f"{path} is not writable for this user"
        _write_and_forget(directory)
    except OSError as error:
        return f"{error.strerror or error} ({error.filename or directory})"
    return None


def _write_and_forget(directory: Path) -> None:
    """Make a file without a name, so that nothing is left of it, nor seen by who copies the directory."""
    try:
        descriptor = os.open(directory, os.O_TMPFILE | os.O_WRONLY, 0o600)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR):
            return  # not on this file system
        raise
    try:
        os.write(descriptor, bytes(_PROBE))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
