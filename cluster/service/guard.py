"""Keeps requests that end Chroma's process from ending it again, on this node and on the others."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from cluster.quarantine import Quarantine

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cluster.errors import EngineDied
    from cluster.peers import Peers

log = logging.getLogger(__name__)

#: The client is answered no later than that: it may ask another node next, which should know.
_TELL_S: Final = 0.3


class Guard:
    """Lives on the node's event loop."""

    def __init__(self, node_id: str, peers: Peers, urls: Iterable[str]) -> None:
        self._node_id = node_id
        self._peers = peers
        self._urls = urls
        self._quarantine = Quarantine()
        self._telling: set[asyncio.Task[None]] = set()

    @property
    def is_alert(self) -> bool:
        """Whether any request is suspected: only then are requests to be recognised."""
        return bool(self._quarantine)

    def admit(self, digest: bytes) -> None:
        """Raises:
        Quarantined: this request is refused for a while.
        """
        self._quarantine.admit(digest, time.monotonic())

    def answered(self, digest: bytes) -> None:
        """A suspect was answered by an engine that lives."""
        self._quarantine.answered(digest)

    def heard(self, digest: bytes, cause: str, for_s: float) -> None:
        """Another node refuses this request."""
        self._quarantine.heard(digest, cause, for_s, time.monotonic())

    async def died(self, digest: bytes, death: EngineDied) -> None:
        """Refuse this request from here on; the other nodes are told, as far as that takes no time."""
        cause = f"node {self._node_id}: {death.message}"
        for_s = self._quarantine.died(digest, cause, time.monotonic(), proven=death.proven)
        log.warning("a request is refused for %g s: %s", for_s, death.message)
        telling = [
            asyncio.create_task(self._peers.tell_suspect(url, digest, cause, for_s)) for url in self._urls
        ]
        self._telling.update(telling)
        for task in telling:
            task.add_done_callback(self._telling.discard)
        if telling:
            await asyncio.wait(telling, timeout=_TELL_S)
