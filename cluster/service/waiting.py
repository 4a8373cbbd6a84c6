"""What reads wait for: an index that this node has applied, and the leader's read index."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from cluster.errors import Unavailable
from cluster.reads import (
    behind,
    check_age,
    check_freshness,
    longest_wait_s,
    needs_read_index,
    wanted_index,
)
from cluster.staleness import Knowledge, age_ms, seen_as_of
from cluster.steady import steady_s

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cluster.apply.applier import Applier
    from cluster.config import NodeSettings
    from cluster.peers import Peers
    from cluster.raft.interface import Raft
    from cluster.reads import Guarantee
    from cluster.service.health import Health
    from cluster.service.leader import Leader

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ready:
    """A read may begin. `known` is what it will show at least; `applied` was applied by then."""

    guarantee: Guarantee
    known: Knowledge
    applied: int


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
        clock: Callable[[], float] = steady_s,
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._read_timeout_s = settings.read_timeout_ms / 1000
        self._raft = raft
        self._applier = applier
        self._peers = peers
        self._leader = leader
        self._health = health

    async def guaranteed(self, guarantee: Guarantee) -> Ready:
        """Return when this node may serve a read with that guarantee; `judge` what it then has read.

        Raises:
            Unavailable: it may not, or not in time; another node may.
        """
        arrived_s = self._clock()
        status = self._raft.status()
        known = status.known
        check_freshness(
            guarantee,
            status.quorum_contact_ms,
            self._settings.node_id,
            self._settings.election_timeout_max_ms,
        )
        read_index = await self._linearizable_index() if needs_read_index(guarantee) else None
        if read_index is not None:
            known = Knowledge(read_index, arrived_s)
        age = self._age_ms(known)
        check_age(guarantee, age, self._settings.node_id)
        wait_s = longest_wait_s(guarantee, age, self._read_timeout_s)
        await self.applied(wanted_index(guarantee, read_index, status.known.index), wait_s)
        return Ready(guarantee, known, self._applier.applied_index)

    def judge(self, ready: Ready) -> None:
        """The read is done: whether it still is what was asked for. This node may have stood still meanwhile.

        Raises:
            Unavailable: what was read may be older than the read allows.
        """
        if ready.guarantee.max_staleness_ms is not None:
            known = seen_as_of(ready.known, self._raft.status().known, ready.applied)
            check_age(ready.guarantee, self._age_ms(known), self._settings.node_id)

    def _age_ms(self, known: Knowledge) -> float:
        return age_ms(known, self._clock())

    async def read_index(self) -> int:
        """The leader's read index, proven by a quorum round that starts after this call."""
        self._health.require_serving()
        index: int = await self._in_time(
            asyncio.wrap_future(self._raft.read_index()), "a majority to confirm the leader"
        )
        return index

    async def applied(self, index: int, wait_s: float | None = None) -> None:
        """Return when this node's Chroma has everything up to `index`, in `wait_s` or the read timeout.

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
                async with asyncio.timeout(self._read_timeout_s if wait_s is None else wait_s):
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
            async with asyncio.timeout(self._read_timeout_s):
                return await waiting
        except TimeoutError:
            raise Unavailable(
                f"Waited {self._settings.read_timeout_ms} ms for {what}. Nothing was read; try again."
            ) from None


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
