"""A Chroma directory as a source: copied, never opened; whether somebody writes to it meanwhile is looked at.

Only what Chroma keeps there counts: its SQLite file with what stands beside it, and the folders of its
indexes.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
import stat
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from cluster.disk import space_at
from cluster.moving.plan import NothingDone

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from pathlib import Path

SQLITE: Final = "chroma.sqlite3"
_FILES: Final = (SQLITE, f"{SQLITE}-wal", f"{SQLITE}-journal")
_INDEX: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MAGIC: Final = b"SQLite format 3\0"
_ATTEMPTS: Final = 3
_AT_ONCE: Final = 4 * 1024 * 1024
_SPARE: Final = 64 * 1024 * 1024

#: Of each file: size, times of the last change of contents and of anything, and which file it is.
Fingerprint = dict[str, tuple[int, int, int, int]]


class Unreadable(Exception):
    """What SQLite says against a file."""


def examine(path: Path) -> None:
    """See that it looks like a Chroma directory.

    Raises:
        NothingDone: it is none.
    """
    main = path / SQLITE
    try:
        with main.open("rb") as file:
            start = file.read(len(_MAGIC))
    except FileNotFoundError:
        raise NothingDone(_none_of_chroma(path)) from None
    except OSError as error:
        raise NothingDone(f"{main} cannot be read: {error.strerror}. Nothing was changed.") from None
    if start != _MAGIC:
        raise NothingDone(
            f"{main} is no SQLite file: it is damaged, or no Chroma's. Nothing was changed. Take another "
            "copy of the directory."
        )


def _none_of_chroma(path: Path) -> str:
    if not path.exists():
        return f"{path} does not exist. Nothing was changed."
    if next(path.glob("*.parquet"), None) is not None:
        return (
            f"{path} was written by Chroma before 0.4, which chromadb 1.5.9 does not open. Nothing was "
            "changed. Migrate it with Chroma's own chroma-migrate first."
        )
    inside = next(path.glob(f"*/{SQLITE}"), None) or next(path.glob(f"*/*/{SQLITE}"), None)
    hint = f" There is one in {inside.parent}." if inside is not None else ""
    return f"{path} is no Chroma directory: it has no {SQLITE}. Nothing was changed.{hint}"


def fingerprint(path: Path) -> Fingerprint:
    """What every write to one of Chroma's files there changes.

    Raises:
        OSError: it cannot be looked at.
    """
    found: Fingerprint = {}
    for name, size, facts in _files(path):
        found[name] = (size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino)
    return found


def _files(path: Path) -> list[tuple[str, int, os.stat_result]]:
    names = [name for name in _FILES if (path / name).is_file()]
    for entry in sorted(path.iterdir()):
        if _INDEX.fullmatch(entry.name) and entry.is_dir():
            names += [f"{entry.name}/{file.name}" for file in sorted(entry.iterdir())]
    found: list[tuple[str, int, os.stat_result]] = []
    for name in names:
        try:
            facts = (path / name).stat()
        except FileNotFoundError:  # SQLite's journals come and go
            continue
        if stat.S_ISREG(facts.st_mode):
            found.append((name, facts.st_size, facts))
    return found


def copy(source: Path, target: Path, stop: Callable[[], bool]) -> Fingerprint:
    """Copy Chroma's files to `target`, at a moment at which nobody writes; what they were then.

    Raises:
        NothingDone: somebody keeps writing, there is no room, a file cannot be read, or `stop` says so. No
            copy is left.
    """
    try:
        for _ in range(_ATTEMPTS):
            before = fingerprint(source)
            _room(sum(size for size, *_ in before.values()), target.parent)
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True, mode=0o700)
            if _copied(source, target, before, stop) and fingerprint(source) == before:
                return before
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)
        raise NothingDone(
            f"{source} cannot be copied to {target}: {error.strerror or error}. Nothing was changed, and "
            "the copy was removed. Make room or choose another place for it with --work."
        ) from None
    except NothingDone:
        shutil.rmtree(target, ignore_errors=True)
        raise
    shutil.rmtree(target, ignore_errors=True)
    raise NothingDone(
        f"{source} is being written to: it changed each time it was copied. Nothing was changed, and the "
        "copy was removed. Stop who writes to it, or import from the server that does."
    )


def _room(needed: int, at: Path) -> None:
    space = space_at(at)
    if space is not None and space.free < needed + _SPARE:
        raise NothingDone(
            f"The copy of the source takes {needed:,} bytes, and {at} has room for {space.free:,}. Nothing "
            "was changed. Make room or choose another place with --work."
        )


def _copied(source: Path, target: Path, files: Fingerprint, stop: Callable[[], bool]) -> bool:
    for name in files:
        (target / name).parent.mkdir(exist_ok=True)
        try:
            with (source / name).open("rb") as original, (target / name).open("wb") as copied:
                while data := original.read(_AT_ONCE):
                    if stop():
                        raise NothingDone("It was interrupted. Nothing was changed.")
                    copied.write(data)
        except FileNotFoundError:
            return False
    return True


def check(copied: Path, source: Path) -> None:
    """See that the SQLite file is whole and Chroma's.

    Raises:
        NothingDone: not.
    """
    try:
        with _opened(copied, "rw") as database:
            damage = database.execute("PRAGMA quick_check(1)").fetchone()[0]
            tables = {
                name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            }
    except sqlite3.Error as error:
        damage, tables = str(error), set[str]()
    if damage != "ok":
        raise NothingDone(
            f"{source / SQLITE} is damaged: {str(damage).strip().splitlines()[-1]}. Nothing was changed. "
            "Take another copy of the directory, or move what can be read with Chroma itself."
        )
    if "collections" not in tables:
        raise NothingDone(f"{source / SQLITE} is not Chroma's: it has no collections. Nothing was changed.")


def tenants(copied: Path) -> list[str]:
    """All tenants; to be asked when Chroma has opened the copy, and brought it up to date.

    Raises:
        Unreadable: it cannot be read.
    """
    try:
        with _opened(copied, "ro") as database:
            return [name for (name,) in database.execute("SELECT id FROM tenants ORDER BY id")]
    except sqlite3.Error as error:
        raise Unreadable(str(error)) from None


class _opened:
    """A connection that is closed at the end."""

    def __init__(self, directory: Path, mode: str) -> None:
        self._address = f"file:{quote(str(directory / SQLITE))}?mode={mode}"

    def __enter__(self) -> sqlite3.Connection:
        self._database = sqlite3.connect(self._address, uri=True, timeout=30)
        return self._database

    def __exit__(self, *error: object) -> None:
        self._database.close()
