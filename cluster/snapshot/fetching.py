"""Fetches one snapshot into DIR/incoming/ID/: `manifest`, `files/`, and the file under way in `partial`.

What is in `files/` has the checksum that the manifest says; it is summed again when a fetch goes on after a
restart, because nothing is synced before all is there.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Protocol

from cluster.disk import space_at
from cluster.errors import Unavailable
from cluster.failpoint import failpoint
from cluster.snapshot import files
from cluster.snapshot.installing import incoming
from cluster.snapshot.manifest import CHROMA, Manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cluster.snapshot.manifest import File

_MARGIN = 64 * 1024 * 1024
#: How often a file whose checksum does not match is fetched.
_ATTEMPTS = 2


class Parts(Protocol):
    """Where parts of files come from; see `cluster.snapshot.donating`."""

    async def snapshot_part(self, url: str, snapshot_id: str, number: int, offset: int) -> bytes:
        """Bytes of a file from `offset` on, empty at its end; raises ClusterError."""
        ...


def unfinished(directory: Path) -> Manifest | None:
    """The snapshot that was being fetched when this node ended."""
    folder = incoming(directory)
    for found in sorted(folder.iterdir()) if folder.is_dir() else ():
        with contextlib.suppress(OSError, ValueError):
            manifest = Manifest.decode((found / "manifest").read_bytes())
            if manifest.name == found.name:
                return manifest
    return None


class Fetch:
    """One snapshot from the node at `url`. `on_bytes` is told how many bytes are here; by what it raises it
    may give the fetch up, which then can be gone on with later."""

    def __init__(
        self, directory: Path, parts: Parts, url: str, manifest: Manifest, on_bytes: Callable[[int], None]
    ) -> None:
        self._directory = directory
        self._folder = incoming(directory) / manifest.name
        self._partial = self._folder / "partial"
        self._parts = parts
        self._url = url
        self._manifest = manifest
        self._on_bytes = on_bytes
        self._done = 0

    async def run(self) -> None:
        """Until all of it is here, verified and durable.

        Raises:
            ClusterError: the donor does not answer, or gives what is no part of the snapshot.
            OSError: it cannot be written here.
        """
        missing = await asyncio.to_thread(self._begin)
        self._on_bytes(self._done)
        for number in missing:
            await self._fetch(number)
        failpoint("fetch.all_here")
        await asyncio.to_thread(files.sync_tree, self._folder)
        await asyncio.to_thread(files.sync_directory, self._folder.parent)
        failpoint("fetch.synced")

    def _begin(self) -> list[int]:
        """Make room, and find out which files are missing."""
        folder, manifest = self._folder, self._manifest
        if folder.parent.is_dir():
            for other in folder.parent.iterdir():
                if other != folder:
                    files.remove(other)
        (folder / "files" / CHROMA).mkdir(parents=True, exist_ok=True)
        files.write_durably(folder / "manifest", manifest.encode())
        missing: list[int] = []
        for number, file in enumerate(manifest.files):
            path = folder / "files" / file.path
            if path.is_file() and path.stat().st_size == file.size and files.sum_of(path) == file.checksum:
                self._done += file.size
            else:
                files.remove(path)
                missing.append(number)
        # A partial file is of the first one that is missing.
        partial = self._partial.stat().st_size if self._partial.exists() else 0
        if not missing or partial > manifest.files[missing[0]].size:
            files.remove(self._partial)
            partial = 0
        space = space_at(self._directory)
        needed = manifest.size - self._done - partial + _MARGIN
        if space is not None and space.free < needed:
            raise Unavailable(
                f"the snapshot needs {needed} more bytes, but {space.free} are free at {space.path}: free "
                "space there"
            )
        return missing

    async def _fetch(self, number: int) -> None:
        file = self._manifest.files[number]
        for _ in range(_ATTEMPTS):
            offset = self._partial.stat().st_size if self._partial.exists() else 0
            while offset < file.size:
                part = await self._parts.snapshot_part(self._url, self._manifest.name, number, offset)
                if not part or offset + len(part) > file.size:
                    raise Unavailable(f"the donor's {file.path} has not the {file.size} bytes that it should")
                await asyncio.to_thread(_append, self._partial, part)
                offset += len(part)
                self._on_bytes(self._done + offset)
                failpoint("fetch.part_written")
            if await asyncio.to_thread(self._accept, file):
                self._done += file.size
                failpoint("fetch.file_done")
                return
        raise Unavailable(f"what the donor sends of {file.path} does not match the checksum of its manifest")

    def _accept(self, file: File) -> bool:
        if not file.size:
            self._partial.touch()
        if files.sum_of(self._partial) != file.checksum:
            files.remove(self._partial)
            return False
        target = self._folder / "files" / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        self._partial.rename(target)
        return True


def _append(path: Path, part: bytes) -> None:
    with path.open("ab", buffering=0) as file:
        file.write(part)
