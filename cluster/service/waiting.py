"""What reads wait for: an index that this node has applied, and the leader's read index."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from cluster.errors import Unavailable
from cluster.reads import behind, check_freshness, needs_read_index, wanted_index

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from cluster.apply.applier import Applier
    from cluster.config import NodeSettings
    from cluster.peers import Peers
    from cluster.raft.interface import Raft
    from cluster.reads import Guarantee
    from cluster.service.health import Health
    from cluster.service.leader import Leader

T = TypeVar("T")


class Waiting:
    """Holds a read until its guarantee is met, for `read_timeout_ms` at most."""

    def __init__(
        self,
        settings: NodeSettings,
        raft: Raft,
        applier: Applier,
        peers: Peers,
        leader: Leader,
        health: Health,
    ) -> None:
        self._settings = settings
        self._raft = raft
        self._applier = applier
        self._peers = peers
        self._leader = leader
        self._health = health

    async def guaranteed(self, guarantee: Guarantee) -> None:
        """Return when this node may serve a read with that guarantee.

        Raises:
            Unavailable: it may not, or not in time; another node may.
        """
        status = self._raft.status()
        check_freshness(
            guarantee,
            status.quorum_contact_ms,
            self._settings.node_id,
            self._settings.election_timeout_max_ms,
        )
        read_index = await self._linearizable_index() if needs_read_index(guarantee) else None
        await self.applied(wanted_index(guarantee, read_index, status.commit_index))

    async def read_index(self) -> int:
        """The leader's read index, proven by a quorum round that starts after this call."""
        self._health.require_serving()
        index: int = await self._in_time(
            asyncio.wrap_future(self._raft.read_index()), "a majority to confirm the leader"
        )
        return index

    async def applied(self, index: int) -> None:
        """Return when this node's Chroma has everything up to `index`.

        Raises:
            Unavailable: not in time.
        """
        if self._applier.applied_index >= index:
            return
        loop = asyncio.get_running_loop()
        reached: asyncio.Future[None] = loop.create_future()

        def listener(applied: int) -> None:
            if applied >= index:
                loop.call_soon_threadsafe(_set_done, reached)

        self._applier.add_listener(listener)
        try:
            if self._applier.applied_index < index:
                async with asyncio.timeout(self._settings.read_timeout_ms / 1000):
                    await reached
        except TimeoutError:
            raise behind(index, self._applier.applied_index, self._settings.node_id) from None
        finally:
            self._applier.remove_listener(listener)

    async def _linearizable_index(self) -> int:
        asking = self._leader.ask(self.read_index, self._peers.read_index)
        return await self._in_time(asking, "the leader's read index")

    async def _in_time(self, waiting: Awaitable[T], what: str) -> T:
        try:
            async with asyncio.timeout(self._settings.read_timeout_ms / 1000):
                return await waiting
        except TimeoutError:
            raise Unavailable(
                f"Waited {self._settings.read_timeout_ms} ms for {what}. Nothing was read; try again."
            ) from None


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
