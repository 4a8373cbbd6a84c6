"""Files of a snapshot on the disk: copied, summed, listed, made durable, removed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from typing import TYPE_CHECKING, Final

from cluster.durable import sync_tree
from cluster.snapshot.manifest import hasher

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_PIECE: Final = 1 << 20
#: So much the kernel copies at once.
_STRETCH: Final = 1 << 30
_UNABLE: Final = (errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF)


def copy(source: Path, target: Path) -> None:
    """Copy one file within the kernel; a file system that can lets both share their blocks."""
    with source.open("rb", buffering=0) as found, target.open("wb", buffering=0) as made:
        try:
            while os.copy_file_range(found.fileno(), made.fileno(), _STRETCH):
                pass
        except OSError as error:
            if error.errno not in _UNABLE:
                raise
            made.seek(0)
            made.truncate()
            found.seek(0)
            shutil.copyfileobj(found, made, _PIECE)


def listed(directory: Path) -> list[str]:
    """Paths of all plain files below, relative to it, with `/`, sorted."""
    return sorted(
        os.path.relpath(os.path.join(folder, name), directory)
        for folder, _, names in os.walk(directory)
        for name in names
        if os.path.isfile(os.path.join(folder, name))
    )


def size_of(directory: Path) -> int:
    """Bytes of all files below; what vanishes meanwhile counts nothing."""
    total = 0
    for path in listed(directory):
        with contextlib.suppress(FileNotFoundError):
            total += (directory / path).stat().st_size
    return total


def looks(directory: Path, paths: Iterable[str]) -> dict[str, tuple[int, int, int]]:
    """By path: inode, size and time of the last change in nanoseconds."""
    found: dict[str, tuple[int, int, int]] = {}
    for path in paths:
        seen = (directory / path).stat()
        found[path] = (seen.st_ino, seen.st_size, seen.st_mtime_ns)
    return found


def sum_of(path: Path) -> str:
    """The checksum of a file's content."""
    found = hasher()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            found.update(piece)
    return found.hexdigest()


def write_durably(path: Path, data: bytes) -> None:
    """Replace a small file at once or not at all; durable when this returns."""
    beside = path.with_name(f".{path.name}.new")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def move(source: Path, target: Path) -> None:
    """Rename, durably on both sides."""
    source.rename(target)
    sync_directory(target.parent)
    if source.parent != target.parent:
        sync_directory(source.parent)


def remove(path: Path) -> None:
    """Remove a file or a whole directory; one that is not there is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


__all__ = [
    "copy",
    "listed",
    "looks",
    "move",
    "remove",
    "size_of",
    "sum_of",
    "sync_directory",
    "sync_tree",
    "write_durably",
]
