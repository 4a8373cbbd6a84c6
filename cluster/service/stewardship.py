"""A leader whose Chroma does not serve, or whose copy differs, hands leadership over: it could commit, but
answer nothing, or nothing that is right."""

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
    from cluster.verify.alarms import Alarms

log = logging.getLogger(__name__)

#: Most restarts take less; the others are worth an election.
_PATIENCE_S: Final = 2.0
#: The successor gets so long before this node, if it still leads, tries again.
_AGAIN_S: Final = 2.0
_LOOK_S: Final = 0.25


def is_to_hand_over(*, leads: bool, down_s: float, since_last_s: float, differs: bool = False) -> bool:
    """Whether a node whose Chroma has not served for `down_s`, or whose copy `differs`, is to look for a
    successor; pure."""
    return leads and (differs or down_s > _PATIENCE_S) and since_last_s > _AGAIN_S


def successors(statuses: Mapping[str, dict[str, Any] | None]) -> list[str]:
    """Which other nodes may lead, the furthest first, by what they say of themselves (None: no answer); pure.

    One is well if it serves, is stuck nowhere and is not known to differ. That it has caught up is the
    log's business.
    """
    well = [
        (_number(status.get("applied_index")), node_id)
        for node_id, status in statuses.items()
        if status is not None
        and status.get("healthy") is True
        and status.get("stuck") is None
        and not status.get("alarms")
    ]
    return [node_id for _, node_id in sorted(well, reverse=True)]


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


class Stewardship:
    """Lives on the node's event loop. The node is not barred: it may lead again when its Chroma serves."""

    def __init__(
        self, raft: Raft, tending: Tending, peers: Peers, urls: Mapping[str, str], alarms: Alarms
    ) -> None:
        """`urls` of the other members by node id."""
        self._alarms = alarms
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
            differs = bool(self._alarms.raised)
            since_s = time.monotonic() - last
            if not is_to_hand_over(leads=leads, down_s=down_s, since_last_s=since_s, differs=differs):
                continue
            last = time.monotonic()
            urls = dict(self._urls)
            others = await asyncio.gather(*(self._peers.status(url) for url in urls.values()))
            why = "this node's copy differs" if differs else f"Chroma has not served for {down_s:.1f} s"
            await self._hand_over(successors(dict(zip(urls, others, strict=True))), why)

    async def _hand_over(self, successors: Sequence[str], why: str) -> None:
        """To the first of them that takes over."""
        for to in successors:
            log.warning("%s: handing leadership over to %s", why, to)
            try:
                await asyncio.wrap_future(self._raft.transfer_leadership(to))
            except NotHandedOver as error:
                log.warning("%s", error.message)
            else:
                return
