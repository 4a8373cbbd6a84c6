"""What the parts of one Raft node share: term, role, members, settings, clock, the changes of role."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.failpoint import failpoint
from cluster.raft.outbox import Outbox
from cluster.raft.quorum import majority
from cluster.raft.stock import LEADER, StockNode

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

    from pysyncobj.transport import Transport

    from cluster.raft.interface import Role
    from cluster.raft.journal import Journal
    from cluster.raft.settings import RaftSettings


class Core(StockNode):
    """A node as its parts see it. Its own decisions are in the parts, their order in `node.py`."""

    outbox_type: type[Outbox] = Outbox

    def __init__(
        self,
        node_id: str,
        peer_ids: Iterable[str],
        journal: Journal,
        transport: Transport,
        settings: RaftSettings,
        *,
        clock: Callable[[], float],
        rng: random.Random,
        on_commit: Callable[[int], None] | None = None,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.rng = rng
        self._on_commit = on_commit
        self.fault: str | None = None
        self.halted = False
        """After a fault of the disk or the log itself: nothing is sent or stored any more."""
        self.barred = False
        """After a fault elsewhere in this node: it still votes and stores, but never leads again."""
        self.floor = journal.base_index
        """Every member holds all entries up to here."""
        # SyncObj's constructor looks at every attribute: what properties read has to be there before.
        super().__init__(node_id, peer_ids, journal, transport, settings)
        self.quorum = majority(self.members)
        self.outbox = self.outbox_type(transport, journal, self.peers)

    def may_vote(self) -> bool:
        """Whether this node's journal surely has all that it ever promised (see `standing.py`)."""
        raise NotImplementedError

    def say_again(self) -> None:
        """No leader is heard by this node, which has no vote: tell the others who it is."""
        raise NotImplementedError

    def counts(self, peer: str) -> bool:
        """Whether the word of `peer` is one of a quorum's."""
        raise NotImplementedError

    @property
    def role(self) -> Role:
        if self.halted:
            return "stopped"
        return ("follower", "candidate", "leader")[self.state]

    @property
    def is_leader(self) -> bool:
        return self.state == LEADER and not self.halted

    @property
    def members(self) -> int:
        """How many nodes the cluster has, this one included."""
        return len(self.peers) + 1

    def commit(self, index: int) -> None:
        """Move the commit index up to `index` and tell of it."""
        failpoint("raft.before_commit")
        self.set_commit(index)
        if self._on_commit is not None:
            self._on_commit(index)
        failpoint("raft.after_commit")

    def become_follower(self, term: int, leader: str | None) -> None:
        """Follow `leader` (None: nobody yet) in `term`, giving up leadership or candidacy."""
        raise NotImplementedError

    def become_leader(self, now: float) -> None:
        """Lead the present term; the own vote is durable."""
        raise NotImplementedError
