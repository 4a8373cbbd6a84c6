"""pysyncobj's SyncObj as a base: its construction, membership, connections and state under readable names.

The only module that touches pysyncobj's private names. Everything that decides, sends or stores is
overridden in `core.py` and `node.py` or done by their parts; what remains in use is listed in `RELIED_ON`,
and a test compares the source of those methods with what was reviewed, since pysyncobj promises nothing
about them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pysyncobj.config import SyncObjConf
from pysyncobj.journal import Journal as StockJournal
from pysyncobj.node import Node
from pysyncobj.syncobj import SyncObj

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pysyncobj.transport import Transport

    from cluster.raft.journal import Journal
    from cluster.raft.settings import RaftSettings

FOLLOWER, CANDIDATE, LEADER = 0, 1, 2

RELIED_ON = (
    "__init__",
    "_SyncObj__onNodeConnected",
    "_SyncObj__onNodeDisconnected",
    "_SyncObj__setState",
    "_SyncObj__setCurrentTerm",
    "_SyncObj__generateRaftTimeout",
    "_isLeader",
    "doTick",
    "isNodeConnected",
    "otherNodes",
    "raftCommitIndex",
    "raftCurrentTerm",
)
"""Methods of SyncObj that run in this project's nodes."""

OVERRIDDEN = (
    "_onTick",
    "_applyCommand",
    "_doDestroy",
    "_checkCommandsToApply",
    "_SyncObj__onMessageReceived",
    "_SyncObj__sendAppendEntries",
    "_SyncObj__sendNextNodeIdx",
    "_SyncObj__onBecomeLeader",
    "_SyncObj__getEntries",
    "_SyncObj__deleteEntriesFrom",
    "_SyncObj__deleteEntriesTo",
    "_SyncObj__tryLogCompaction",
    "_SyncObj__applyLogEntries",
    "transferLeadership",
)
"""Methods of SyncObj whose behaviour is replaced: a change there may bring a fix, or a caller, to look at."""


class LogView(StockJournal):
    """The journal in the form that SyncObj's own methods expect: (command, index, term) by position."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def __len__(self) -> int:
        return self._journal.last_index - self._journal.base_index

    def __getitem__(self, position: int) -> tuple[bytes, int, int]:
        """Only the ends are asked for; the payload stays on disk."""
        journal = self._journal
        index = (
            journal.last_index if position == -1 else min(journal.first_index + position, journal.last_index)
        )
        return b"", index, journal.term_at(index)

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:
        self._journal.set_term(term, votedForNodeId)

    def getCurrentTerm(self) -> int:
        return self._journal.term

    def getVotedForNodeId(self) -> str | None:
        return self._journal.vote

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        self._journal.set_commit(raftCommitIndex)

    def getRaftCommitIndex(self) -> int:
        return self._journal.commit_index

    def _destroy(self) -> None:
        return None


class StockNode(SyncObj):
    """A SyncObj without thread, pickle, wall clock or file of its own, around the given journal."""

    def __init__(
        self,
        node_id: str,
        journal: Journal,
        transport: Transport,
        settings: RaftSettings,
        on_state: Callable[[int, int], None] | None = None,
    ) -> None:
        self.node_id = node_id
        self.journal = journal
        self.transport = transport
        self._nodes: dict[str, Node] = {}
        self.peers: dict[str, Node] = {}
        """The other members, by the configuration in force, and those that it is about to leave out."""
        self._name_peers(member.id for member in journal.participants)
        conf = SyncObjConf(
            autoTick=False,
            raftMinTimeout=settings.election_timeout_ms[0] / 1000,
            raftMaxTimeout=settings.election_timeout_ms[1] / 1000,
            appendEntriesPeriod=settings.heartbeat_ms / 1001,  # its check wants strictly less than a third
            connectionTimeout=settings.election_timeout_ms[1] / 1000,
            leaderFallbackTimeout=settings.election_timeout_ms[0] / 1000,
            appendEntriesUseBatch=True,  # no pipe notifier: the driver wakes the raft thread
            onStateChanged=on_state,
            useFork=False,
        )
        super().__init__(Node(node_id), list(self.peers.values()), conf=conf, transport=transport)
        # The constructor made an in-memory journal with an entry of its own: replace it by the durable one.
        self._SyncObj__raftLog = LogView(journal)
        self._SyncObj__raftCurrentTerm = journal.term
        self._SyncObj__votedForNodeId = journal.vote
        self._SyncObj__raftCommitIndex = journal.commit_index

    def node_for(self, node_id: str) -> Node:
        """pysyncobj's handle of any node, a member or not."""
        if node_id not in self._nodes:
            self._nodes[node_id] = Node(node_id)
        return self._nodes[node_id]

    def _name_peers(self, ids: Iterable[str]) -> None:
        names = sorted(peer for peer in ids if peer != self.node_id)
        self.peers.clear()
        self.peers.update((peer, self.node_for(peer)) for peer in names)

    def set_peers(self, ids: Iterable[str]) -> None:
        """From now on these are the members; the own id may be among them."""
        self._name_peers(ids)
        self._SyncObj__otherNodes = set(self.peers.values())

    @property
    def term(self) -> int:
        return self._SyncObj__raftCurrentTerm

    @property
    def vote(self) -> str | None:
        return self._SyncObj__votedForNodeId

    def set_term(self, term: int, vote: str | None) -> None:
        """Adopt term and vote; durable with the journal's next flush."""
        self._SyncObj__setCurrentTerm(term, vote)

    @property
    def state(self) -> int:
        return self._SyncObj__raftState

    def set_state(self, state: int) -> None:
        self._SyncObj__setState(state)

    @property
    def leader_id(self) -> str | None:
        leader = self._SyncObj__raftLeader
        return None if leader is None else leader.id

    def set_leader(self, leader: str | None) -> None:
        node = None if leader is None else self.node_for(leader)
        self._SyncObj__raftLeader = self.selfNode if leader == self.node_id else node

    @property
    def commit_index(self) -> int:
        return self._SyncObj__raftCommitIndex

    def set_commit(self, index: int) -> None:
        self._SyncObj__raftCommitIndex = index
        self._SyncObj__raftLog.setRaftCommitIndex(index)

    @property
    def election_deadline(self) -> float:
        return self._SyncObj__raftElectionDeadline

    def set_election_deadline(self, deadline: float) -> None:
        self._SyncObj__raftElectionDeadline = deadline

    def is_connected(self, peer: str) -> bool:
        return self.isNodeConnected(self.node_for(peer))

    def note_connected(self, node: Node) -> None:
        self._SyncObj__onNodeConnected(node)

    def note_disconnected(self, node: Node) -> None:
        self._SyncObj__onNodeDisconnected(node)

    def _applyCommand(
        self, command: bytes, callback: Callable[..., None] | None, commandType: int | None = None
    ) -> None:
        """pysyncobj's own way in pickles; nothing comes in through it."""
        raise TypeError(
            "propose() is the only way into this log; pysyncobj's replicated methods are not used"
        )

    def transferLeadership(self, node: Any = None, callback: Any = None) -> None:
        raise TypeError("use transfer(): pysyncobj's own transfer does not wait for the target to catch up")
