"""A leader whose Chroma does not serve hands leadership over: it could commit, but answer nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final

from cluster.errors import NotHandedOver

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cluster.chroma.interface import Tending
    from cluster.peers import Peers
    from cluster.raft.interface import Raft

log = logging.getLogger(__name__)

#: Most restarts take less; the others are worth an election.
_PATIENCE_S: Final = 2.0
#: The successor gets so long before this node, if it still leads, tries again.
_AGAIN_S: Final = 2.0
_LOOK_S: Final = 0.25


def is_to_hand_over(*, leads: bool, down_s: float, since_last_s: float) -> bool:
    """Whether a node whose Chroma has not served for `down_s` is to look for a successor; pure."""
    return leads and down_s > _PATIENCE_S and since_last_s > _AGAIN_S


def successors(statuses: Mapping[str, dict[str, Any] | None]) -> list[str]:
    """Which other nodes may lead, the furthest first, by what they say of themselves (None: no answer); pure.

    One is well if it serves and is stuck nowhere. That it has caught up is the log's business.
    """
    well = [
        (_number(status.get("applied_index")), node_id)
        for node_id, status in statuses.items()
        if status is not None and status.get("healthy") is True and status.get("stuck") is None
    ]
    return [node_id for _, node_id in sorted(well, reverse=True)]


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


class Stewardship:
    """Lives on the node's event loop. The node is not barred: it may lead again when its Chroma serves."""

    def __init__(self, raft: Raft, tending: Tending, peers: Peers, urls: Mapping[str, str]) -> None:
        """`urls` of the other members by node id."""
        self._raft = raft
        self._tending = tending
        self._peers = peers
        self._urls = urls

    async def watch(self) -> None:
        """Hand over whenever that is due, until cancelled."""
        last = -_AGAIN_S
        while True:
            await asyncio.sleep(_LOOK_S)
            down_s = self._tending.condition().down_s
            leads = self._raft.status().role == "leader"
            if not is_to_hand_over(leads=leads, down_s=down_s, since_last_s=time.monotonic() - last):
                continue
            last = time.monotonic()
            urls = dict(self._urls)
            others = await asyncio.gather(*(self._peers.status(url) for url in urls.values()))
            await self._hand_over(successors(dict(zip(urls, others, strict=True))), down_s)

    async def _hand_over(self, successors: Sequence[str], down_s: float) -> None:
        """To the first of them that takes over."""
        for to in successors:
            log.warning("Chroma has not served for %.1f s: handing leadership over to %s", down_s, to)
            try:
                await asyncio.wrap_future(self._raft.transfer_leadership(to))
            except NotHandedOver as error:
                log.warning("%s", error.message)
            else:
                return
