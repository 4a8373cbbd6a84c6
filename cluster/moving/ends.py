"""The two ends of a move, as servers: a directory is served as long as the move lasts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from cluster.chroma.plain import DoesNotOpen, served
from cluster.moving import directory as files
from cluster.moving.plan import NothingDone
from cluster.moving.server import Access, Server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from cluster.moving.notes import Notes

#: How long the first answer of a server may take, and that of a directory, which is checked and migrated
#: first.
_FIRST_S: Final = 2.0
_OPEN_S: Final = 600.0
#: How long a server that answered before may be away.
PATIENCE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Source:
    """Where records come from."""

    server: Server
    tenants: tuple[str, ...]
    changed: Callable[[], list[str]]
    """What of its files has changed since they were copied; for a server nothing, it is asked."""
    is_copy: bool


def is_url(name: str) -> bool:
    """Whether a source or a target is named as a server."""
    return name.startswith(("http://", "https://"))


@contextlib.asynccontextmanager
async def running(
    url: str, name: Literal["the source", "the target"], access: Access
) -> AsyncGenerator[Server]:
    """The server at a URL.

    Raises:
        NothingDone: it is out of reach, or no Chroma.
    """
    first = Server(url, name, access, patience_s=_FIRST_S)
    try:
        await first.probe()
    finally:
        await first.close()
    server = Server(url, name, access, patience_s=PATIENCE_S)
    try:
        await server.probe()
        yield server
    finally:
        await server.close()


@contextlib.asynccontextmanager
async def source_server(url: str, tenants: tuple[str, ...], access: Access) -> AsyncGenerator[Source]:
    """A running server as a source; of its tenants those that are named, for it lists none."""
    async with running(url, "the source", access) as server:
        for tenant in tenants:
            if not await server.has_tenant(tenant):
                raise NothingDone(
                    f"The source at {url} has no tenant {tenant!r}. Nothing was changed. Correct --tenant."
                )
        yield Source(server, tenants, list, is_copy=False)


@contextlib.asynccontextmanager
async def source_directory(path: Path, notes: Notes) -> AsyncGenerator[Source]:
    """A directory as a source: a copy of it is served, which stays for a move that goes on later.

    Raises:
        NothingDone: it is no Chroma directory, damaged, or being written to.
    """
    copied = notes.directory / "copy"
    before = notes.journal.copied if copied.is_dir() else None
    if before is None:
        if notes.journal.built:
            raise NothingDone(
                f"The copy of the source that an interrupted move began with is gone from {copied}. "
                "Nothing was changed. Say --afresh to drop what that move has done and begin anew."
            )
        before = await _copied(path, copied)
        notes.write(copied={name: list(facts) for name, facts in before.items()})
    try:
        async with served(copied, notes.directory, timeout_s=_OPEN_S) as url:
            tenants = tuple(files.tenants(copied))
            async with running(url, "the source", Access({})) as server:
                yield Source(server, tenants, lambda: _changed(path, before), is_copy=True)
    except (DoesNotOpen, files.Unreadable) as error:
        raise NothingDone(
            f"Chroma {_version()} does not open a copy of {path}: {error}. Nothing was changed. See "
            "whether the Chroma that wrote it opens it, and import from that server."
        ) from None


async def _copied(path: Path, copied: Path) -> files.Fingerprint:
    files.examine(path)
    stop = threading.Event()
    try:
        before = await asyncio.to_thread(files.copy, path, copied, stop.is_set)
        await asyncio.to_thread(files.check, copied, path)
    except BaseException:
        stop.set()  # a copy that is under way ends, and removes itself
        shutil.rmtree(copied, ignore_errors=True)
        raise
    return before


@contextlib.asynccontextmanager
async def target_directory(path: Path, notes: Notes) -> AsyncGenerator[Server]:
    """A new directory as a target: it has another name until `put_in_place`.

    Raises:
        NothingDone: it exists already, or cannot be made.
    """
    partial = _usable(path, notes)
    try:
        async with (
            served(partial, notes.directory, timeout_s=_OPEN_S) as url,
            running(url, "the target", Access({})) as server,
        ):
            yield server
    except DoesNotOpen as error:
        raise NothingDone(
            f"Chroma does not open {partial}: {error}. Nothing else was changed. Remove it and export "
            "again with --afresh."
        ) from None


def _usable(path: Path, notes: Notes) -> Path:
    """Where the target directory grows; see that nobody else's data is there."""
    partial = partial_of(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise NothingDone(
            f"{path} exists already. Nothing was changed. Export to a directory that does not exist or is "
            "empty."
        )
    if partial.exists() and not notes.journal.built and "partial" not in notes.journal.marks:
        raise NothingDone(
            f"{partial} exists, and no interrupted export knows it. Nothing was changed. Remove it, if "
            "nobody needs it, or export to another directory."
        )
    notes.write(mark="partial")
    partial.mkdir(parents=True, exist_ok=True)
    return partial


def partial_of(path: Path) -> Path:
    """What a target directory is called until it is complete."""
    return path.with_name(f"{path.name}.partial")


def put_in_place(path: Path) -> None:
    """Give a complete target directory its name; done already is fine.

    Raises:
        OSError: it cannot be renamed.
    """
    partial = partial_of(path)
    if not partial.exists():
        return
    os.rename(partial, path)
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def _changed(path: Path, before: files.Fingerprint) -> list[str]:
    try:
        now = files.fingerprint(path)
    except OSError as error:
        return [f"{path} cannot be looked at any more: {error.strerror}"]
    names = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    if not names:
        return []
    more = f" and {len(names) - 3} more files" if len(names) > 3 else ""
    return [f"{path} was written to after it was copied ({', '.join(names[:3])}{more})"]


def _version() -> str:
    from importlib.metadata import version

    return version("chromadb")
