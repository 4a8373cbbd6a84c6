"""A leader whose Chroma does not serve, or whose copy differs, hands leadership over: it could commit, but
answer nothing, or nothing that is right."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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


def has_successor(statuses: Iterable[dict[str, Any] | None]) -> bool:
    """Whether any other node's Chroma serves and nothing is wrong with it (None: no answer); pure."""
    return any(
        status is not None and status.get("healthy") is True and not status.get("alarms")
        for status in statuses
    )


class Stewardship:
    """Lives on the node's event loop. The node is not barred: it may lead again when its Chroma serves."""

    def __init__(
        self, raft: Raft, tending: Tending, peers: Peers, urls: Sequence[str], alarms: Alarms
    ) -> None:
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
            others = await asyncio.gather(*(self._peers.status(url) for url in self._urls))
            if has_successor(others):
                why = "this node's copy differs" if differs else f"Chroma has not served for {down_s:.1f} s"
                log.warning("%s: handing leadership over", why)
                await asyncio.to_thread(self._raft.transfer_leadership)
