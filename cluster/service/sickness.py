"""Which collections this node's Chroma cannot read though others can, found by opening Chroma anew."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final

from cluster.chroma.interface import Engine, Get
from cluster.errors import ClusterError, EngineUnavailable, Refusal

if TYPE_CHECKING:
    from cluster.chroma.interface import Tending
    from cluster.service.reads import Reads

log = logging.getLogger(__name__)

#: Chroma is opened anew for a check at most so often.
_EVERY_S: Final = 30.0
#: Each waits some seconds for a Chroma process that is being started.
_TRIES: Final = 4


class Sickness:
    """Lives on the node's event loop."""

    def __init__(self, tending: Tending, reads: Reads) -> None:
        self._tending = tending
        self._reads = reads
        self._checked_at: float | None = None
        self._sick: dict[str, str] = {}

    @property
    def collections(self) -> dict[str, str]:
        """Why each of them cannot be read, by the cluster's id."""
        return dict(self._sick)

    async def check(self, collection_id: str) -> dict[str, Any]:
        """As `cluster.api.interface.PeerService.check_collection`."""
        now = time.monotonic()
        if self._checked_at is not None and now - self._checked_at < _EVERY_S:
            return {"checked": False, "sick_collections": self.collections}
        self._checked_at = now
        log.warning("a read of collection %s failed here, not elsewhere: opening Chroma anew", collection_id)
        self._tending.restart(f"to check collection {collection_id}")
        for _ in range(_TRIES):
            try:
                await self._reads.on_engine(lambda engine: _probe(engine, collection_id))
            except EngineUnavailable:
                continue  # the process that was there, or none yet
            except Refusal:
                self._sick.pop(collection_id, None)  # the collection is gone
            except ClusterError as error:
                log.error("collection %s cannot be read here: %s", collection_id, error.message)
                self._sick[collection_id] = error.message
            else:
                self._sick.pop(collection_id, None)
            break
        return {"checked": True, "sick_collections": self.collections}


def _probe(engine: Engine, collection_id: str) -> None:
    """Read from each of the stores that Chroma has for a collection."""
    engine.count(collection_id)
    engine.get(collection_id, Get(limit=1, include=("embeddings", "metadatas", "documents")))
