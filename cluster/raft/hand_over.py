"""Leadership on its way to another node: to whom, and until when it is tried."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cluster.raft.messages import TimeoutNow

if TYPE_CHECKING:
    from cluster.raft.core import Core
    from cluster.raft.replication import Replication

logger = logging.getLogger(__name__)


class HandOver:
    """A hand-over that this leader was asked for, if it was."""

    def __init__(self, core: Core, replication: Replication) -> None:
        self.core = core
        self.replication = replication
        self.deadline_s: float | None = None
        """When a hand-over that is under way is given up; None: there is none."""
        self._sent = False

    @property
    def is_under_way(self) -> bool:
        return self.deadline_s is not None

    def begin(self) -> None:
        if self.core.is_leader and self.core.peers and self.deadline_s is None:
            self.deadline_s = self.core.clock() + self.core.settings.election_low_s
            self._sent = False

    def end(self) -> None:
        self.deadline_s = None

    def best(self) -> str | None:
        """The connected follower that holds most and may lead."""
        core, progress = self.core, self.replication.progress
        connected = [peer for peer in progress if core.is_connected(peer) and core.counts(peer)]
        return max(connected, key=lambda peer: (progress[peer].match, peer), default=None)

    def go_on(self, now: float) -> None:
        """Tell the best follower to stand, once it holds everything; give up at the deadline."""
        core = self.core
        if self.deadline_s is None:
            return
        best = self.best()
        caught_up = best is not None and self.replication.progress[best].match == core.journal.last_index
        if best is not None and caught_up and not self._sent:
            logger.info("raft %s: hands leadership of term %d to %s", core.node_id, core.term, best)
            self._sent = True
            core.outbox.send(best, TimeoutNow(core.term))
        if now >= self.deadline_s:
            self.deadline_s = None
            if core.barred:
                core.become_follower(core.term, None)
