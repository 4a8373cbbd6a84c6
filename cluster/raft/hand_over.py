"""Leadership on its way to another node: to whom, and until when it is tried."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, TypeAlias

from cluster.raft.messages import TimeoutNow

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.raft.core import Core
    from cluster.raft.replication import Replication

logger = logging.getLogger(__name__)

#: A node that was asked for and lacks more entries than this is refused at once: the leader takes no writes
#: while it waits for its successor.
MAX_LAG: Final = 1_000

#: Told once how a hand-over ended. None: this node does not lead any more; else why leadership stays here.
Answer: TypeAlias = "Callable[[str | None], None]"


def _nobody_asks(why: str | None) -> None:
    return None


class HandOver:
    """A hand-over that this leader was asked for, if it was."""

    def __init__(self, core: Core, replication: Replication) -> None:
        self.core = core
        self.replication = replication
        self.deadline_s: float | None = None
        """When a hand-over that is under way is given up; None: there is none."""
        self._sent = False
        self._to: str | None = None
        self._answers: list[Answer] = []

    @property
    def is_under_way(self) -> bool:
        return self.deadline_s is not None

    def begin(self, to: str | None = None, answer: Answer = _nobody_asks) -> None:
        """Hand leadership to `to`, or to the follower that holds most."""
        why = self._objection(to)
        if why is not None:
            answer(why)
            return
        self._answers.append(answer)
        if self.deadline_s is None:
            self.deadline_s = self.core.clock() + self.core.settings.election_low_s
            self._sent = False
            self._to = to

    def end(self) -> None:
        """This node does not lead (any more, or yet)."""
        self.deadline_s = self._to = None
        self._tell(None)

    def best(self) -> str | None:
        """The connected follower that holds most and may lead."""
        progress = self.replication.progress
        able = [peer for peer in progress if self._inability(peer) is None]
        return max(able, key=lambda peer: (progress[peer].match, peer), default=None)

    def go_on(self, now: float) -> None:
        """Tell the successor to stand, once it holds everything; give up at the deadline."""
        core = self.core
        if self.deadline_s is None:
            return
        best = self._successor()
        caught_up = best is not None and self.replication.progress[best].match == core.journal.last_index
        if best is not None and caught_up and not self._sent:
            logger.info("raft %s: hands leadership of term %d to %s", core.node_id, core.term, best)
            self._sent = True
            core.outbox.send(best, TimeoutNow(core.term))
        if now >= self.deadline_s:
            why = self._failure()
            self.deadline_s = self._to = None
            if core.barred:
                core.become_follower(core.term, None)
            else:
                self._tell(why)

    def _successor(self) -> str | None:
        if self._to is None:
            return self.best()
        return self._to if self._inability(self._to) is None else None

    def _objection(self, to: str | None) -> str | None:
        """Why this cannot be begun."""
        core = self.core
        if not core.is_leader:
            return f"{core.node_id} does not lead."
        if not core.other_voters:
            return "the cluster has one voter only."
        if to is None:
            return None
        if to == core.node_id:
            return f"{to} leads already."
        if to not in self.replication.progress:
            members = ", ".join(sorted((core.node_id, *self.replication.progress)))
            return f"{to} is no member of this cluster; its members are {members}."
        if self.deadline_s is not None and self._to != to:
            return f"it is being handed over to {self._to or 'the node that holds most'} already."
        why = self._inability(to)
        match, last = self.replication.progress[to].match, core.journal.last_index
        if why is None and last - match > MAX_LAG:
            why = f"{to} is known to hold the log up to entry {match} of {last}: too far behind."
        return why

    def _inability(self, peer: str) -> str | None:
        """Why this member cannot lead now, however much it holds."""
        if not self.core.is_connected(peer):
            return f"{peer} is not connected to {self.core.node_id}."
        if peer not in self.core.other_voters:
            return f"{peer} is a learner: it has no vote."
        if not self.core.counts(peer):
            return f"{peer} has no vote yet: its log may lack what it held before."
        return None

    def _failure(self) -> str:
        """Why nobody else leads at the deadline."""
        to = self._to or self.best()
        if to is None:
            return "no other member is connected and may lead."
        if self._sent:
            return f"{to} was asked to stand for election, and does not lead in time."
        return self._inability(to) or f"{to} did not get all entries in time."

    def _tell(self, why: str | None) -> None:
        answers, self._answers = self._answers, []
        for answer in answers:
            answer(why)
