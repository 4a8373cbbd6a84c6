"""The directory of one move: its journal, its lock, and the copy of a source's files, until it is done."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from typing import TYPE_CHECKING, Any, Final

from cluster.errors import Fault
from cluster.lock import DirectoryLock
from cluster.moving.journal import Journal, read
from cluster.moving.plan import NothingDone, Place

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_JOURNAL: Final = "journal.jsonl"


class Notes:
    """Belongs to one process at a time; a line that `write` returned from survives kill -9 and power loss."""

    def __init__(self, root: Path, source: str, target: str) -> None:
        """Open or make the notes on moving `source` to `target`.

        Raises:
            NothingDone: another process is moving the same just now, or nothing can be written there.
        """
        key = hashlib.sha256(f"{source}\0{target}".encode()).hexdigest()[:16]
        self.directory = root / key
        self._path = self.directory / _JOURNAL
        try:
            self._lock = DirectoryLock(self.directory)
            data = self._path.read_bytes() if self._path.exists() else b""
            complete = data[: data.rfind(b"\n") + 1]
            self.journal: Journal = read(complete.splitlines(keepends=True))
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.ftruncate(self._fd, len(complete))
            os.lseek(self._fd, 0, os.SEEK_END)
        except Fault as error:
            raise NothingDone(
                f"{error.message} (It is where a move keeps its notes; --work chooses another place.)"
            ) from None
        except OSError as error:
            raise NothingDone(
                f"The notes of the move cannot be kept in {self.directory}: {error.strerror}. Nothing was "
                "changed. Choose another place with --work."
            ) from None

    def write(self, **line: Any) -> None:
        """One line more, durable when this returns.

        Raises:
            OSError: the disk is full, or worse; the line counts as not written.
        """
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        start = os.lseek(self._fd, 0, os.SEEK_CUR)
        try:
            done = os.write(self._fd, data)
            if done < len(data):
                raise OSError(28, os.strerror(28), str(self._path))
            os.fdatasync(self._fd)
        except OSError:
            os.ftruncate(self._fd, start)
            os.lseek(self._fd, start, os.SEEK_SET)
            raise
        self.journal.apply(json.loads(data))

    def about(self, place: Place, **line: Any) -> None:
        """A line about one collection."""
        self.write(place=list(place), **line)

    def begin(self, header: Mapping[str, Any]) -> bool:
        """Whether an interrupted move with the same header goes on; a new one is noted.

        Raises:
            NothingDone: the interrupted one was told something else.
        """
        before = self.journal.header
        if before is None:
            self.write(move=dict(header))
            return False
        if dict(before) != dict(header):
            told = ", ".join(f"{key} {before.get(key)!r}" for key in header if before.get(key) != header[key])
            raise NothingDone(
                f"A move between these two was interrupted, which was told otherwise ({told}). Nothing was "
                "changed. Repeat it as it was, or say --afresh to drop what it has done and begin anew."
            )
        return True

    def close(self) -> None:
        """Let another process go on."""
        os.close(self._fd)
        self._lock.release()

    def discard(self) -> None:
        """The move is over: remove everything here."""
        self._path.unlink(missing_ok=True)
        shutil.rmtree(self.directory, ignore_errors=True)
