"""Makes this node's copy equal again: it is filled, as a whole, with a snapshot of a node that is well."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final

from cluster.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cluster.peers import Peers
    from cluster.verify.alarms import Alarms

log = logging.getLogger(__name__)

#: A node repairs itself at most so often in such a time: if that does not help, somebody is to look at it.
_TIMES: Final = 3
_WINDOW_S: Final = 24 * 3600.0


def fit_donors(statuses: Mapping[str, Mapping[str, Any] | None]) -> list[str]:
    """Who may give a copy, followers first: healthy, and neither known to differ nor in doubt; pure."""
    fit = {
        node: status
        for node, status in statuses.items()
        if status is not None
        and status.get("healthy") is True
        and not status.get("alarms")
        and status.get("state") != "unverified"
    }
    return sorted(fit, key=lambda node: (fit[node].get("role") == "leader", node))


def why_not(statuses: Mapping[str, Mapping[str, Any] | None], donor: str | None) -> str:
    """Why no node, or not this one, can give a copy; pure."""
    if not statuses:
        return "this node's is the only copy"
    if donor is not None and donor not in statuses:
        return f"{donor} is no other member of this cluster"
    told: list[str] = []
    for node, status in sorted(statuses.items()):
        if donor not in (None, node):
            continue
        if status is None:
            told.append(f"{node} does not answer")
        elif status.get("alarms"):
            told.append(f"{node} differs as well")
        elif status.get("healthy") is not True:
            told.append(f"{node} is not healthy ({status.get('reason')})")
        else:
            told.append(f"{node} waits to be verified")
    return ", ".join(told)


class Repair:
    """Lives on the node's event loop."""

    def __init__(
        self,
        members: Mapping[str, str],
        peers: Peers,
        alarms: Alarms,
        refill: Callable[[str | None, str], None],
        *,
        automatic: bool,
    ) -> None:
        """`members` are the other nodes' URLs; `refill` begins to fill this node (donor, reason)."""
        self._members = members
        self._peers = peers
        self._alarms = alarms
        self._refill = refill
        self._automatic = automatic

    async def repair(self, donor: str | None, reason: str) -> dict[str, Any]:
        """Begin to fill this node from `donor` (None: one that is well); who that is.

        Raises:
            Refusal: 409, there is nobody to give a copy; nothing was changed.
        """
        members = dict(self._members)  # as they are now
        answers = await asyncio.gather(*(self._peers.status(url) for url in members.values()))
        statuses = dict(zip(members, answers, strict=True))
        fit = [node for node in fit_donors(statuses) if donor in (None, node)]
        if not fit:
            why = why_not(statuses, donor)
            raise Refusal(
                409,
                "NoDonorError",
                f"There is no healthy copy to repair from: {why}. Nothing was changed. If you know "
                "whose copy is right, name it: `chroma-cluster repair --from NODE`.",
            )
        log.warning("to be filled from %s: %s", fit[0], reason)
        self._refill(fit[0], reason)
        return {"donor": fit[0]}

    async def trust(self) -> dict[str, Any]:
        """The operator says that this node's copy is the right one: its alarms are over."""
        if self._alarms.raised:
            log.warning("the operator says that this node's copy is right: its alarms are over")
            await asyncio.to_thread(self._alarms.clear)
        return {"trusted": True}

    def on_differs(self, donors: Sequence[str]) -> None:
        """A verification named this node; `donors` were compared and are equal. Repairs it, if it may."""
        if not self._automatic:
            return
        if not donors:
            log.error("this node is not repaired by itself: nobody is known to have the right copy")
        elif self._alarms.may_repair(time.time(), _TIMES, _WINDOW_S):
            self._refill(donors[0], "a verification found its copy to differ")
        else:
            log.error("repaired %d times already, this node differs again: look at its disk", _TIMES)
