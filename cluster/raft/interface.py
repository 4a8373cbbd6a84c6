"""What the replicated log offers to the rest of a node: plain values and one protocol.

No module outside `cluster/raft/` sees pysyncobj; they see this.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from cluster.levels import Levels
from cluster.staleness import NOTHING_KNOWN, Knowledge

if TYPE_CHECKING:
    from concurrent.futures import Future

Role: TypeAlias = Literal["leader", "follower", "candidate", "stopped"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One committed log entry. An empty payload is Raft's own (no-op): nothing to apply."""

    index: int
    term: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Position:
    """Where a proposal was committed."""

    index: int
    term: int


@dataclass(frozen=True, slots=True)
class Member:
    """`address` is where its log is dialled, `http` where its service answers; "": as in the settings.

    `incarnation` is the journal that stands for this id, "" while that is not recorded.
    """

    id: str
    address: str = ""
    http: str = ""
    is_voter: bool = True
    incarnation: str = ""


@dataclass(frozen=True, slots=True)
class Configuration:
    """The members in the order of their ids. `number` counts the changes since the founding (0)."""

    number: int = 0
    members: tuple[Member, ...] = ()

    def member(self, node_id: str) -> Member | None:
        return next((member for member in self.members if member.id == node_id), None)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(member.id for member in self.members)

    @property
    def voters(self) -> frozenset[str]:
        return frozenset(member.id for member in self.members if member.is_voter)

    def is_voter(self, node_id: str) -> bool:
        member = self.member(node_id)
        return member is not None and member.is_voter


@dataclass(frozen=True, slots=True)
class Add:
    """A new member, as a learner: it is sent everything and counts for nothing."""

    id: str
    address: str
    http: str = ""


@dataclass(frozen=True, slots=True)
class Promote:
    """A learner that has caught up becomes a voter."""

    id: str


@dataclass(frozen=True, slots=True)
class Remove:
    id: str


@dataclass(frozen=True, slots=True)
class Move:
    """A member is reached at other addresses from now on; an empty one stays as it is."""

    id: str
    address: str = ""
    http: str = ""


@dataclass(frozen=True, slots=True)
class Admit:
    """The journal that runs under a member's id is that member from now on: the former one is lost."""

    id: str


Change: TypeAlias = Add | Promote | Remove | Move | Admit


@dataclass(frozen=True, slots=True)
class Lack:
    """A node needs the entries from `needs` on, and its leader has compacted away those up to `compacted`."""

    needs: int
    compacted: int


@dataclass(frozen=True, slots=True)
class RaftStatus:
    """A consistent picture of one node's log, taken at one tick.

    `match_index` is filled on the leader only: the last index each peer is known to hold.
    `leader` is the id of the leader of `term` as this node knows it, or None.
    `quorum_contact_ms` is the time since this node last knew itself in touch with a majority
    (leader: acks of a majority; follower: when the leader's last message arrived). A message may arrive long
    after it was sent: how old what this node holds may be is told by `known` alone.
    `leader_commit` is the commit index of the term's leader as this node heard it, None before it heard any.
    `configuration` names the members, `hint` also says when this node is none.
    `lacks` is what this node was told that nobody has any more; `unservable` (on the leader) who lacks what.
    `without_vote` (on the leader) are the members that are there and have no vote yet, or no more.
    """

    node_id: str
    role: Role
    term: int
    leader: str | None
    first_index: int
    last_index: int
    commit_index: int
    quorum_contact_ms: float
    match_index: dict[str, int] = field(default_factory=dict[str, int])
    connected: tuple[str, ...] = ()
    hint: str | None = None
    """Why this node has no vote yet, in words; None when it has."""
    leader_commit: int | None = None
    lacks: Lack | None = None
    unservable: dict[str, Lack] = field(default_factory=dict[str, Lack])
    without_vote: tuple[str, ...] = ()
    known: Knowledge = NOTHING_KNOWN
    """How far the log is surely complete, and as of when, by the clock of `cluster.steady`."""
    configuration: Configuration = field(default_factory=Configuration)
    """The members by the newest entry in this node's log, committed or not."""
    configuration_committed: bool = True
    is_removed: bool = False
    """This node is no member any more, as it or a member that it heard knows."""
    levels: dict[str, Levels] = field(default_factory=dict[str, Levels])
    """What each connected peer says of the command levels that it understands."""
    refused: dict[str, str] = field(default_factory=dict[str, str])
    """By peers without a link: why one of the two refused the other."""


class Raft(Protocol):
    """The replicated log of one node. All methods are thread-safe and return at once unless said.

    Futures fail with `cluster.errors`: `NotLeader` (surely not appended), `Overloaded` (surely not
    appended), `OutcomeUnknown` (appended, then leadership lost or stopped), `Fault`. A hand-over has its own.
    """

    def start(self) -> None:
        """Open the journal, bind the transport and start the raft thread."""
        ...

    def stop(self) -> None:
        """Hand leadership over if this node has it, then stop the thread and close the journal."""
        ...

    def propose(self, payload: bytes) -> Future[Position]:
        """Append `payload` to the log; the future is done when it is committed."""
        ...

    def read_index(self) -> Future[int]:
        """An index such that a state machine that applied it may serve a linearizable read.

        Leader only. Proven by a quorum round that starts after this call; concurrent calls share
        rounds, a round is never reused for a call that came after it began (etcd 20418).
        """
        ...

    def wait_commit(self, after: int, timeout_s: float) -> int:
        """Block until the commit index is above `after` or the time is over; the commit index."""
        ...

    def entries(self, start: int, max_bytes: int) -> list[Entry]:
        """Committed entries from index `start` on, at least one if there is one, about max_bytes.

        Raises:
            LookupError: `start` has been compacted away.
        """
        ...

    def set_applied(self, index: int) -> None:
        """The state machine has durably applied up to `index`: compaction may drop up to it."""
        ...

    def change_members(self, change: Change) -> Future[Position]:
        """Leader only: append the configuration that `change` makes; the future is done when it is committed.

        It fails also with `configuration.ChangeRefused` (a mistake) and `ChangeNotNow` (the same may be
        accepted later): surely not appended.
        """
        ...

    def transfer_leadership(self, to: str | None = None) -> Future[None]:
        """Have `to` take over, or the follower that holds most. No proposals are taken until that is over.

        The future is done when this node does not lead any more, within an election timeout. It fails with
        `NotHandedOver` if leadership stays here: `to` is no member, is not connected, has no vote, lags too
        far behind or did not take over in time; or this node does not lead.
        """
        ...

    def fail(self, reason: str) -> None:
        """This node has a local fault: hand leadership over and do not stand for election again."""
        ...

    def status(self) -> RaftStatus:
        """The latest picture; never blocks on the raft thread."""
        ...
