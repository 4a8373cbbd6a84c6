"""Who leads, where that node is, and what it is asked by the others."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

from cluster.errors import Unavailable
from cluster.leader_watch import LeaderChanged, unless_leader_changes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from cluster.config import NodeSettings
    from cluster.raft.interface import Raft

T = TypeVar("T")


class Leader:
    """The leader as this node knows it, which may be this node."""

    def __init__(self, settings: NodeSettings, raft: Raft) -> None:
        self._settings = settings
        self._raft = raft

    def is_here(self) -> bool:
        """Whether this node takes writes itself at the moment."""
        return self._raft.status().role == "leader"

    def id(self) -> str | None:
        """The leader's node id, or None if unknown."""
        return self._raft.status().leader

    def url(self) -> str | None:
        """Base URL of the leader's HTTP API, or None if unknown."""
        return self.url_of(self.id())

    def url_of(self, node_id: str | None) -> str | None:
        """Base URL of a member's HTTP API."""
        if node_id is None:
            return None
        if node_id == self._settings.node_id:
            return self._settings.advertise_http or f"http://{self._settings.http}"
        member = self._raft.status().configuration.member(node_id)
        peer = self._settings.peers.get(node_id)
        return (member.http if member else "") or (peer.http if peer else None)

    async def ask(
        self, here: Callable[[], Awaitable[T]], there: Callable[[str], Coroutine[Any, Any, T]]
    ) -> T:
        """What the leader says, asked `here` or `there` (at its URL); of its successor if it hangs.

        Raises:
            Unavailable: no leader is known.
        """
        while not self.is_here():
            leader = self.id()
            url = self.url_of(leader)
            if leader is None or url is None:
                raise Unavailable("No leader is known at the moment. Nothing was read or changed; try again.")
            with contextlib.suppress(LeaderChanged):
                return await unless_leader_changes(
                    there(url), leader, self.id, leaderless_s=self._settings.read_timeout_ms / 1000
                )
        return await here()
