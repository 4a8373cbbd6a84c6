"""One process at a time in a data directory: an OS lock that dies with its holder."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, Final

from cluster.errors import Fault

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

_FILE: Final = "LOCK"


class DirectoryLock:
    """Holds `directory/LOCK` from construction to `release` or the end of the process.

    The file stays behind and means nothing by itself: what counts is the flock on it, which the
    kernel drops with the process, also after kill -9. It contains the holder's process id.
    """

    def __init__(self, directory: Path, name: str = _FILE) -> None:
        """Take the lock; `name` is that of its file.

        Raises:
            Fault: another process has it (named by id), or the directory cannot be written.
        """
        self._path = directory / name
        try:
            directory.mkdir(parents=True, exist_ok=True)
            # Not inherited by children: one that outlives this process must not keep the lock.
            self._fd: int | None = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise Fault(
                f"Cannot use the data directory {directory}: {error.strerror}. Nothing was changed. "
                "Make it a directory that this user can write, or choose another."
            ) from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            holder = os.pread(self._fd, 32, 0).decode(errors="replace").strip()
            os.close(self._fd)
            self._fd = None
            if isinstance(error, BlockingIOError):
                raise Fault(
                    f"The data directory {directory} is in use by process {holder or 'unknown'}. "
                    f"Nothing was changed. Stop that process first, or give this one a directory of its own."
                ) from None
            raise Fault(
                f"Cannot lock the data directory {directory}: {error.strerror}. Nothing was changed. "
                "It must be on a local file system with space left."
            ) from None

    def release(self) -> None:
        """Give the directory free; a second release does nothing."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> DirectoryLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
