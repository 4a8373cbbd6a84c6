"""Members with different versions of Chroma: named, and a follower that could answer otherwise does not."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.peers import Peers
    from cluster.service.health import Health
    from cluster.service.leader import Leader

log = logging.getLogger(__name__)

_LOOK_S: Final = 2.0
_STEPS: Final = 40


def own_versions() -> dict[str, str]:
    """Of what decides how this node answers."""
    return {"chromadb": importlib.metadata.version("chromadb")}


def difference(own: dict[str, str], status: dict[str, Any] | None) -> str | None:
    """In which way this node is not of the leader's version, by the leader's status; pure.

    None if it is, or if that is not known: a leader that does not answer proves nothing.
    """
    said: Any = None if status is None else status.get("versions")
    if not isinstance(said, dict):
        return None
    theirs = cast("dict[str, Any]", said)
    for name, version in own.items():
        if name in theirs and theirs[name] != version:
            return f"This node has {name} {version}, the leader has {theirs[name]}"
    return None


class Versions:
    """Lives on the node's event loop. Leaders serve: so one version always does."""

    def __init__(self, leader: Leader, health: Health, peers: Peers, *, mixed: bool) -> None:
        """`mixed` allows followers of another version than the leader's to serve."""
        self.own = own_versions()
        self._leader = leader
        self._health = health
        self._peers = peers
        self._mixed = mixed
        self._named: str | None = None

    async def watch(self, changed: Callable[[], None]) -> None:
        """Compare with the leader again and again, until cancelled; `changed` when the finding changes."""
        while True:
            await self.look(changed)
            for _ in range(_STEPS):
                await asyncio.sleep(_LOOK_S / _STEPS)
                if self._named is not None and self._leader.is_here():
                    break  # a new leader is to serve at once

    async def look(self, changed: Callable[[], None]) -> None:
        """Compare once."""
        found: str | None = None
        if not self._leader.is_here():
            url = self._leader.url()
            status = None if url is None else await self._peers.status(url)
            if status is None:
                return  # what was found holds until more is known
            found = difference(self.own, status)
        if found != self._named:
            self._named = found
            log.warning("%s", found or "this node has the leader's versions, or leads")
            self._health.outdated = None if self._mixed else found
            changed()
