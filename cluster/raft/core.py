"""What the parts of one Raft node share: term, role, members, settings, clock, the changes of role."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from cluster.failpoint import failpoint
from cluster.raft.configuration import electorates
from cluster.raft.outbox import Outbox
from cluster.raft.quorum import majority, reached
from cluster.raft.stock import LEADER, StockNode

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

    from pysyncobj.transport import Transport

    from cluster.raft.interface import Configuration, Member, Role
    from cluster.raft.journal import Journal
    from cluster.raft.settings import RaftSettings

_Value = TypeVar("_Value", int, float)


class Core(StockNode):
    """A node as its parts see it. Its own decisions are in the parts, their order in `node.py`."""

    outbox_type: type[Outbox] = Outbox

    def __init__(
        self,
        node_id: str,
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
        self.removed_by: int | None = None
        """The number of the configuration without this node that a member told it of."""
        # SyncObj's constructor looks at every attribute: what properties read has to be there before.
        super().__init__(node_id, journal, transport, settings)
        self._adopted = journal.participants
        self.outbox = self.outbox_type(transport, journal, self.node_for)

    def may_vote(self) -> bool:
        """Whether this node's journal surely has all that it ever promised (see `standing.py`)."""
        raise NotImplementedError

    def say_again(self) -> None:
        """No leader is heard by this node, which has no vote: tell the others who it is."""
        raise NotImplementedError

    def is_needed(self) -> bool:
        """Whether this node is in every majority: it holds all that was committed (see `standing.py`)."""
        raise NotImplementedError

    def may_change(self) -> bool:
        """Whether this leader may append another configuration now: one at a time, and none before
        something of its own term is committed.
        """
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

    # ------------------------------------------------------------------ members

    @property
    def configuration(self) -> Configuration:
        """The one in force here."""
        return self.journal.configuration

    @property
    def electorates(self) -> tuple[frozenset[str], ...]:
        """A majority of each of these decides; this node itself may be in none."""
        return electorates(self.configuration, self.journal.former_configuration)

    @property
    def may_stand(self) -> bool:
        """A voter, or one whose removal may yet come to nothing: only it can bring that to an end."""
        return self.removed_by is None and any(self.node_id in voters for voters in self.electorates)

    @property
    def other_voters(self) -> frozenset[str]:
        return self.configuration.voters - {self.node_id}

    def quorum_of(self, voters: frozenset[str]) -> int:
        return majority(len(voters))

    def reached(self, values: Mapping[str, _Value], lowest: _Value) -> _Value:
        """The highest value that a majority of each electorate has reached; others have `lowest`."""
        return min(
            reached([values.get(voter, lowest) for voter in voters], self.quorum_of(voters))
            for voters in self.electorates
        )

    def adopt(self) -> None:
        """Called whenever the log may have another configuration at its end, or a newer committed one."""
        now = self.journal.participants
        if now != self._adopted:
            self._adopted = now
            self.set_peers(member.id for member in now)
            self.on_configuration(now)

    def on_configuration(self, members: tuple[Member, ...]) -> None:
        """From now on these take part, or are reached elsewhere."""
        raise NotImplementedError

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
