"""Vectors for texts, made at the leader in a thread of their own."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from cluster.errors import ClusterError, NotLeader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.apply.applier import Applier
    from cluster.embedding.embedder import Embedder
    from cluster.peers import Peers
    from cluster.service.health import Health
    from cluster.service.leader import Leader
    from cluster.service.reads import Reads
    from cluster.service.waiting import Waiting

log = logging.getLogger(__name__)

_WARM_CHECK_S: Final = 1.0


class VectorMaking:
    """Asks the leader for vectors, or makes them if this node leads."""

    def __init__(
        self,
        embedder: Embedder,
        applier: Applier,
        peers: Peers,
        leader: Leader,
        health: Health,
        waiting: Waiting,
        reads: Reads,
    ) -> None:
        self._embedder = embedder
        self._applier = applier
        self._peers = peers
        self._leader = leader
        self._health = health
        self._waiting = waiting
        self._reads = reads
        # Models are slow and use all cores by themselves: one text batch at a time.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embed")

    async def embed(
        self, collection_id: str, texts: Sequence[str], *, query: bool = False
    ) -> tuple[list[bytes], str, int]:
        """As `cluster.api.interface.Service.embed`."""
        self._health.require_serving()
        return await self._leader.ask(
            lambda: self.embed_here(collection_id, texts, query=query),
            lambda url: self._peers.embed(url, collection_id, texts, query=query),
        )

    async def embed_here(
        self, collection_id: str, texts: Sequence[str], *, query: bool
    ) -> tuple[list[bytes], str, int]:
        """Vectors by the collection's function; only the leader answers, so that one model decides.

        Raises:
            NotLeader: this node has not confirmed within a round that it leads.
            Refusal: no such collection, or its function is not one that this server builds.
        """
        if not self._leader.is_here():
            raise NotLeader(self._leader.id())
        # A leader that was just elected may not have applied the collection's creation yet.
        await self._waiting.applied(await self._waiting.read_index())
        collection = await self._reads.on_engine(lambda engine: engine.collection(collection_id))
        function = self._embedder.function_for(collection["configuration_json"])
        pinned = self._applier.model_of(collection_id)
        made = await asyncio.get_running_loop().run_in_executor(
            self._thread,
            lambda: self._embedder.embed(function, texts, pinned=pinned, query=query),
        )
        return made.vectors, made.fingerprint, made.dimension

    async def keep_warm(self) -> None:
        """Load the default model as soon as any collection has text embedded by this cluster.

        Not only at the leader: whoever leads next must not make writes of text wait for it.
        """
        loop = asyncio.get_running_loop()
        while True:
            if self._applier.catalog.embeds():
                try:
                    return await loop.run_in_executor(self._thread, self._embedder.warm)
                except ClusterError as error:
                    log.warning("the default embedding model cannot be loaded: %s", error.message)
                    return None
            await asyncio.sleep(_WARM_CHECK_S)

    def close(self) -> None:
        """Wait for the model's work under way and stop its thread."""
        self._thread.shutdown(wait=True)
