"""Room on the disks of all members: told at 80 %, and no write that grows them is taken before one is full.

A full disk stops a node; if all have about the same, it stops all of them at about the same entry. So the
leader looks at its own disk and asks the others for theirs, and refuses what would grow them while there is
still room for what is under way. Reads, deletes and changes of names go on.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from cluster.disk import MEBIBYTE, Space, space_at
from cluster.errors import NoRoom
from cluster.state.commands import CreateCollection, CreateDatabase, CreateTenant, WriteRecords

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from cluster.peers import Peers
    from cluster.raft.interface import Raft
    from cluster.state.commands import Command

log = logging.getLogger(__name__)

WARN_PERCENT: Final = 80
_MOST_RESERVE: Final = 1024 * MEBIBYTE
_LEAST_RESERVE: Final = 32 * MEBIBYTE
_LOOK_S: Final = 1.0
#: A disk that hangs keeps the thread that asks it; what it said last counts meanwhile.
_PATIENCE_S: Final = 1.0
_GROWING: Final = (WriteRecords, CreateCollection, CreateDatabase, CreateTenant)


def reserve_of(space: Space, setting: int | None) -> int:
    """How many bytes are to stay free: as set, else 5 % of the disk, of a large one 1 GiB."""
    if setting is not None:
        return setting
    # On a small disk what counts as full anyhow (`Space.is_short`) is 5 % of it too.
    return min(max(space.total // 20, min(_LEAST_RESERVE, space.total // 10)), _MOST_RESERVE)


def used_percent(space: Space) -> int:
    """How much of the disk is not free to this user, rounded down."""
    return 100 - -(-100 * space.free // max(space.total, 1))


def warning(space: Space) -> str | None:
    """What is to be said of a disk that fills up, or None."""
    used = used_percent(space)
    if used < WARN_PERCENT:
        return None
    return f"the disk is {used} % full: {space.free} bytes are free at {space.path}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`refusal` says why writes that need room are refused, None if they are taken."""

    refusal: str | None


def judge(spaces: Mapping[str, Space | None], setting: int | None, *, refused_before: bool) -> Verdict:
    """Look at every member's disk (None: not known; a member that is away holds nobody up).

    What was refused is taken again with a quarter more than the reserve, so that it does not go to and fro.
    """
    for node, space in sorted(spaces.items()):
        if space is None:
            continue
        reserve = reserve_of(space, setting)
        if space.free < (reserve + reserve // 4 if refused_before else reserve):
            return Verdict(
                f"The disk of {node} is nearly full: {space.free} bytes are free at {space.path}, "
                f"{reserve} are kept in reserve"
            )
    return Verdict(None)


def said_space(status: dict[str, Any] | None) -> Space | None:
    """The room that another node's status tells, or None."""
    said: Any = None if status is None else status.get("disk")
    if not isinstance(said, dict):
        return None
    disk = cast("dict[str, Any]", said)
    path, free, total = disk.get("path"), disk.get("free_bytes"), disk.get("total_bytes")
    if not isinstance(path, str) or type(free) is not int or type(total) is not int:
        return None
    return Space(path, free, total)


class Room:
    """Lives on the node's event loop."""

    def __init__(
        self,
        node_id: str,
        data_dir: Path,
        reserve: int | None,
        raft: Raft,
        peers: Peers,
        urls: Mapping[str, str],
        *,
        look: Callable[[Path], Space | None] = space_at,
    ) -> None:
        """`urls` are the other members' by id; `reserve` in bytes, None: chosen by the size of each disk."""
        self._node_id = node_id
        self._data_dir = data_dir
        self._reserve = reserve
        self._raft = raft
        self._peers = peers
        self._urls = urls
        self._look = look
        self._looking: asyncio.Future[Space | None] | None = None
        self._own: Space | None = None
        self._verdict = Verdict(None)
        self._warned: str | None = None

    def status(self) -> dict[str, Any] | None:
        """`disk` in the node's status; None before the first look."""
        if self._own is None:
            return None
        return {
            "path": self._own.path,
            "free_bytes": self._own.free,
            "total_bytes": self._own.total,
            "used_percent": used_percent(self._own),
            "warning": warning(self._own),
            "writes_refused": self._verdict.refusal,
        }

    def require(self, command: Command) -> None:
        """Raises:
        NoRoom: the command needs room, and a member's disk is nearly full.
        """
        refusal = self._verdict.refusal
        if refusal is not None and isinstance(command, _GROWING):
            raise NoRoom(
                f"{refusal}. Nothing was changed. Free space there; reads and deletes go on, and writes are "
                "taken again within seconds when there is room. (Chroma uses the room of deleted records "
                "again, but does not give it back to the disk.)"
            )

    async def watch(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_S)

    async def look(self) -> None:
        """Look once: at the own disk, and as leader at those of the others."""
        await self._look_here()
        spaces: dict[str, Space | None] = {self._node_id: self._own}
        if self._raft.status().role == "leader":
            urls = dict(self._urls)
            statuses = await asyncio.gather(*(self._peers.status(url) for url in urls.values()))
            spaces |= {node: said_space(status) for node, status in zip(urls, statuses, strict=True)}
        found = judge(spaces, self._reserve, refused_before=self._verdict.refusal is not None)
        if (found.refusal is None) != (self._verdict.refusal is None):
            log.warning("%s", found.refusal or "there is room on the disks again: writes are taken")
        self._verdict = found
        self._warn()

    async def _look_here(self) -> None:
        if self._looking is None:
            self._looking = asyncio.ensure_future(asyncio.to_thread(self._look, self._data_dir))
        done, _ = await asyncio.wait((self._looking,), timeout=_PATIENCE_S)
        if done:
            self._own = self._looking.result() or self._own
            self._looking = None

    def _warn(self) -> None:
        found = None if self._own is None else warning(self._own)
        if (found is None) != (self._warned is None):
            log.warning("%s", found or f"the disk is less than {WARN_PERCENT} % full again")
        self._warned = found
