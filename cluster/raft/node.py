"""One Raft node without I/O: messages, ticks and proposals in, messages and journal writes out.

Raft as in figure 2 of the paper with pre-vote, check-quorum, leader stickiness, read index and leadership
transfer of the thesis, on pysyncobj's SyncObj (see `stock.py`). Time, randomness, network and disk are
constructor arguments; nothing here starts a thread, sleeps or looks at a wall clock.

One rule orders a tick: what promises nothing (entries to followers, heartbeats, pre-votes) leaves at once;
then the journal is flushed; only then leave the votes, acks and vote requests that were waiting for it, and
only then does a leader count itself. Handlers never flush, so one tick costs one fsync however much came in.
"""

from __future__ import annotations

import logging
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.errors import Fault, NotLeader
from cluster.failpoint import failpoint
from cluster.raft.messages import (
    Accepted,
    Append,
    Heartbeat,
    HeartbeatReply,
    Message,
    PreVote,
    PreVoteReply,
    Rejected,
    TimeoutNow,
    Vote,
    VoteReply,
    WireEntry,
)
from cluster.raft.progress import Progress
from cluster.raft.stock import CANDIDATE, FOLLOWER, LEADER, StockNode

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

    from pysyncobj.node import Node
    from pysyncobj.transport import Transport

    from cluster.raft.interface import Role
    from cluster.raft.journal import Journal
    from cluster.raft.settings import RaftSettings

logger = logging.getLogger(__name__)

PROBE_BYTES = 64 * 1024
"""A probe takes entries along only when they are small: it may well be refused."""
STALL_TIMEOUTS = 5
"""A stream whose acks stop for this many election timeouts is probed afresh, though its connection lives."""


@dataclass(slots=True)
class _Round:
    """Reads that share one quorum round: answered with `index` once a majority has answered `number`."""

    number: int
    index: int
    waiting: list[Callable[[int | None], None]]


class CorrectedNode(StockNode):
    """See the module. Not thread-safe: one thread (or the simulation) makes all calls.

    `on_commit(index)` is called as soon as the commit index moves, before the tick's fsync.
    """

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
        self._clock = clock
        self._rng = rng
        self._on_commit = on_commit
        self._election_low_s = settings.election_timeout_ms[0] / 1000
        self._election_high_s = settings.election_timeout_ms[1] / 1000
        self._heartbeat_s = settings.heartbeat_ms / 1000
        self.fault: str | None = None
        self.halted = False
        """After a fault of the disk or the log itself: nothing is sent or stored any more."""
        self.barred = False
        """After a fault elsewhere in this node: it still votes and stores, but never leads again."""
        self._held: list[tuple[Node, Message]] = []  # leave after the next flush
        self._pre_vote_term: int | None = None  # proposed term while asking for pre-votes
        self._granted: set[str] = set()
        self._attempts = 0
        self._heard_s = float("-inf")  # when the present leader was last heard
        self._told_s = float("-inf")  # when it last sent a whole message: what staleness is counted from
        self._leader_commit = 0
        self._verified = journal.commit_index  # this far the log equals the present leader's
        self._verified_term = 0
        self._floor = journal.base_index  # every member holds all entries up to here
        self._applied = 0
        self._progress: dict[str, Progress] = {}
        self._first_own_index = 0  # the no-op of the own term, while leader
        self._heartbeat_due_s = 0.0
        self._round = 0
        self._round_began: dict[int, float] = {}
        self._new_reads: list[Callable[[int | None], None]] = []
        self._rounds: list[_Round] = []
        self._transfer_deadline_s: float | None = None
        self._transfer_sent = False
        self._stood_transfer = False
        self._unservable: set[str] = set()
        self._shared: tuple[tuple[int, ...], Append, int] | None = None  # within one tick
        self._ticked_s = clock()
        # Last, because SyncObj's constructor looks at every attribute, properties included.
        super().__init__(node_id, peer_ids, journal, transport, settings)
        self.quorum = (len(self.peers) + 1) // 2 + 1
        transport.setOnMessageReceivedCallback(self._on_message)
        transport.setOnNodeConnectedCallback(self._on_connected)
        transport.setOnNodeDisconnectedCallback(self._on_disconnected)
        self._election_in(*settings.early_election_ms)

    # ------------------------------------------------------------------ looking

    @property
    def role(self) -> Role:
        if self.halted:
            return "stopped"
        return ("follower", "candidate", "leader")[self.state]

    @property
    def is_leader(self) -> bool:
        return self.state == LEADER and not self.halted

    @property
    def is_transferring(self) -> bool:
        return self._transfer_deadline_s is not None

    def match_indices(self) -> dict[str, int]:
        return {peer: progress.match for peer, progress in self._progress.items()} if self.is_leader else {}

    def quorum_contact_s(self) -> float:
        """The time at which this node was last surely in touch with a majority; -inf for never."""
        if not self.is_leader:
            return self._told_s
        if self.quorum == 1:
            return self._clock()
        proven = sorted((progress.proven_s for progress in self._progress.values()), reverse=True)
        return proven[self.quorum - 2]

    def next_deadline_s(self) -> float:
        """When the next tick is due if nothing arrives before."""
        if self.halted:
            return self._clock() + 3600
        if self.state != LEADER:
            return self.election_deadline
        deadline = self._heartbeat_due_s
        if self._transfer_deadline_s is not None:
            deadline = min(deadline, self._transfer_deadline_s)
        return deadline

    # ------------------------------------------------------------------ asking

    def propose(self, payload: bytes) -> tuple[int, int]:
        """Append `payload` as leader: (index, term). Sent and made durable by the next tick.

        Raises:
            NotLeader: nothing was appended.
        """
        if not self.is_leader or self.barred or self.is_transferring:
            leader = self.leader_id
            raise NotLeader(leader if leader != self.node_id else None)
        row = self.journal.append(self.term, payload)
        return row.index, row.term

    def read_index(self, answer: Callable[[int | None], None]) -> None:
        """Call `answer` with a read index once a quorum round that begins after now has proven it.

        None: this node is not, or no longer, the leader.
        """
        if self.is_leader and not self.barred:
            self._new_reads.append(answer)
        else:
            answer(None)

    def set_applied(self, index: int) -> None:
        """The state machine has durably applied up to `index`."""
        self._applied = max(self._applied, index)

    def transfer(self) -> None:
        """Hand leadership to the most caught-up follower; no proposals are taken meanwhile."""
        if self.is_leader and self.peers and self._transfer_deadline_s is None:
            self._transfer_deadline_s = self._clock() + self._election_low_s
            self._transfer_sent = False

    def bar(self, reason: str) -> None:
        """A fault outside the log: hand leadership over and never lead again; go on voting and storing."""
        if self.fault is None:
            self.fault = reason
        self.barred = True
        self.transfer()
        if not self.peers and self.is_leader:
            self._become_follower(self.term, None)

    def halt(self, reason: str) -> None:
        """A fault of disk or log: nothing can be promised any more. Hand over as far as that is possible."""
        if self.halted:
            return
        logger.critical("raft %s: stops taking part: %s", self.node_id, reason)
        self.fault = reason
        self.retire()

    def retire(self) -> None:
        """Take no part any more, handing leadership over without waiting for the result."""
        if self.halted:
            return
        self._held.clear()
        if self.state == LEADER:
            best = self._best_follower()
            if best is not None:
                self._send(best, TimeoutNow(self.term))
            self._leave_leadership()
        self.halted = True
        self.set_state(FOLLOWER)
        self.set_leader(None)

    def _doDestroy(self) -> None:
        """Stop as a crash would: nothing is flushed, nothing more is sent."""
        self._held.clear()
        self.transport.destroy()

    # ------------------------------------------------------------------ the tick

    def _onTick(self, timeToWait: float = 0.0) -> None:
        """One tick; `doTick` comes here. Waiting is the driver's business."""
        if self.halted:
            return
        try:
            self._tick()
        except (Fault, sqlite3.Error, OSError) as error:
            self.halt(_describe(error))

    def _tick(self) -> None:
        now = self._clock()
        if self.state == LEADER:
            self._lead(now)
        elif now >= self.election_deadline:
            self._stand(now)
        if self.state == LEADER:
            self._advance_commit()
            self._begin_round_for_reads(now)
            self._replicate(now)
        self._compact()
        self._ticked_s = now
        self.journal.flush()
        self._release_held()
        if self.state == LEADER:
            self._advance_commit()
            self._notify_commit()
        elif self.state == CANDIDATE:
            self._count_votes(now)
        else:
            self._follow_commit()

    def _lead(self, now: float) -> None:
        self._forgive_own_stall(now)
        if not self._has_quorum(now):
            logger.warning(
                "raft %s: lost touch with a majority, steps down in term %d", self.node_id, self.term
            )
            self._become_follower(self.term, None)
            return
        if self._transfer_deadline_s is not None:
            self._continue_transfer(now)
            if self.state != LEADER:
                return
        if now >= self._heartbeat_due_s:
            self._beat(now)

    def _forgive_own_stall(self, now: float) -> None:
        """While this node itself was held up it asked nobody: that is no sign against the others."""
        gap = now - self._ticked_s
        if gap > 3 * self._heartbeat_s:
            for progress in self._progress.values():
                progress.contact_s += min(gap, self._election_low_s) - self._heartbeat_s

    def _compact(self) -> None:
        if self.state == LEADER:
            matched = [progress.match for progress in self._progress.values()]
            self._floor = max(self._floor, min([*matched, self.journal.durable_index, self.commit_index]))
        limit = min(self._floor, self._applied, self.commit_index)
        if limit > self.journal.base_index:
            self.journal.compact(limit, self.settings.journal_budget_bytes)

    def _release_held(self) -> None:
        held, self._held = self._held, []
        newest = {node.id: message for node, message in held if type(message) is Accepted}
        for node, message in held:
            if type(message) is not Accepted:
                self.transport.send(node, message)
            elif newest[node.id] is message:
                failpoint("raft.before_ack")
                self.transport.send(node, message)
                failpoint("raft.after_ack")

    # ------------------------------------------------------------------ elections

    def _election_in(self, low_ms: float, high_ms: float) -> None:
        self.set_election_deadline(self._clock() + self._rng.uniform(low_ms, high_ms) / 1000)

    def _retry_election(self) -> None:
        """The next try comes soon at first, so that a split vote costs little, then ever later."""
        low, high = self.settings.election_timeout_ms
        soon = self.settings.early_election_ms[1] * 2**self._attempts
        self._attempts = min(self._attempts + 1, 16)
        if soon >= low:
            self._election_in(low, high)
        else:
            self._election_in(soon, min(2 * soon, high))

    def _stand(self, now: float) -> None:
        """The leader is gone, as far as this node knows: ask whether an election could be won."""
        if self.barred:
            self._election_in(*self.settings.election_timeout_ms)
            self._forget_leader()
            return
        self._retry_election()
        self._forget_leader()
        self.set_state(CANDIDATE)
        self._pre_vote_term = self.term + 1
        self._granted = {self.node_id}
        journal = self.journal
        for peer in self.peers:
            self._send(peer, PreVote(self.term, self.term + 1, journal.last_index, journal.last_term))
        if len(self._granted) >= self.quorum:
            self._elect(transfer=False)

    def _elect(self, *, transfer: bool) -> None:
        """A real election: the own vote is durable before it is counted or asked of others."""
        self._pre_vote_term = None
        self._forget_leader()
        self.set_state(CANDIDATE)
        self.set_term(self.term + 1, self.node_id)
        self._granted = {self.node_id}
        self._retry_election()
        journal = self.journal
        for peer in self.peers:
            self._hold(peer, Vote(self.term, journal.last_index, journal.last_term, transfer))

    def _count_votes(self, now: float) -> None:
        """Called after a flush, so the own vote is durable."""
        if self._pre_vote_term is None and len(self._granted) >= self.quorum:
            self._become_leader(now)

    def _forget_leader(self) -> None:
        self.set_leader(None)

    def _is_leader_alive(self) -> bool:
        """This node leads, or hears its leader: then it helps nobody to depose it."""
        if self.state == LEADER:
            return True
        leader = self.leader_id
        if leader is None or not self.is_connected(leader):
            return False
        return self._clock() - self._heard_s < self._election_low_s

    def _is_up_to_date(self, last_index: int, last_term: int) -> bool:
        return (last_term, last_index) >= (self.journal.last_term, self.journal.last_index)

    def _on_pre_vote(self, node: Node, message: PreVote) -> None:
        granted = (
            message.proposed > self.term
            and self._is_up_to_date(message.last_index, message.last_term)
            and not self._is_leader_alive()
        )
        if granted and self.state == FOLLOWER:
            # Somebody else is about to stand: do not stand against it at the same moment.
            soon = self._clock() + self._rng.uniform(1, 2) * self.settings.early_election_ms[1] / 1000
            self.set_election_deadline(max(self.election_deadline, soon))
        self._reply(node, PreVoteReply(self.term, message.proposed, granted))

    def _on_pre_vote_reply(self, node: Node, message: PreVoteReply) -> None:
        if message.term > self.term:
            self._become_follower(message.term, None)
        elif message.granted and self.state == CANDIDATE and message.proposed == self._pre_vote_term:
            self._granted.add(node.id)
            if len(self._granted) >= self.quorum:
                self._elect(transfer=False)

    def _on_vote(self, node: Node, message: Vote) -> None:
        if message.term > self.term:
            if self._is_leader_alive() and not message.transfer:
                self._reply(node, VoteReply(self.term, False))
                return
            self._become_follower(message.term, None)
        granted = (
            message.term == self.term
            and self.vote in (None, node.id)
            and self._is_up_to_date(message.last_index, message.last_term)
        )
        if granted:
            self.set_term(self.term, node.id)
            self._election_in(*self.settings.election_timeout_ms)
        self._hold(node.id, VoteReply(self.term, granted))

    def _on_vote_reply(self, node: Node, message: VoteReply) -> None:
        if message.term > self.term:
            self._become_follower(message.term, None)
        elif message.granted and message.term == self.term and self.state == CANDIDATE:
            self._granted.add(node.id)

    def _on_timeout_now(self, node: Node, message: TimeoutNow) -> None:
        if message.term == self.term and node.id == self.leader_id and not self.barred:
            logger.info("raft %s: asked by %s to take over", self.node_id, node.id)
            self._elect(transfer=True)

    def _become_follower(self, term: int, leader: str | None) -> None:
        if self.state == LEADER:
            self._leave_leadership()
        if term > self.term:
            self.set_term(term, None)
        if self.state != FOLLOWER:
            self.set_state(FOLLOWER)
            self._election_in(*self.settings.election_timeout_ms)
        self._pre_vote_term = None
        self._granted = set()
        if leader != self.leader_id:
            self.set_leader(leader)

    def _become_leader(self, now: float) -> None:
        journal = self.journal
        self._attempts = 0
        self.set_state(LEADER)
        self.set_leader(self.node_id)
        self._progress = {
            peer: Progress(journal.last_index + 1, contact_s=now, moved_s=now) for peer in self.peers
        }
        self._round_began.clear()
        self._transfer_deadline_s = None
        self._unservable.clear()
        self._first_own_index = journal.append(self.term, b"").index
        logger.info("raft %s: leads term %d from index %d", self.node_id, self.term, self._first_own_index)
        self._beat(now)
        self._replicate(now)
        journal.flush()
        self._advance_commit()

    def _leave_leadership(self) -> None:
        self._told_s = self.quorum_contact_s()
        self._progress = {}
        self._transfer_deadline_s = None
        answers = [answer for pending in self._rounds for answer in pending.waiting] + self._new_reads
        self._rounds, self._new_reads = [], []
        for answer in answers:
            answer(None)
        self.set_leader(None)

    # ------------------------------------------------------------------ messages

    def _on_message(self, node: Node, message: Message) -> None:
        """Every message comes in here, from the transport."""
        if self.halted or node.id not in self.peers:
            return
        try:
            self._dispatch(node, message)
        except (Fault, sqlite3.Error, OSError) as error:
            self.halt(_describe(error))

    def _dispatch(self, node: Node, message: Message) -> None:
        match message:
            case Append():
                self._on_append(node, message)
            case Accepted() | Rejected() | HeartbeatReply():
                self._on_follower_reply(node, message)
            case Heartbeat():
                self._on_heartbeat(node, message)
            case PreVote():
                self._on_pre_vote(node, message)
            case PreVoteReply():
                self._on_pre_vote_reply(node, message)
            case Vote():
                self._on_vote(node, message)
            case VoteReply():
                self._on_vote_reply(node, message)
            case TimeoutNow():
                self._on_timeout_now(node, message)

    def _on_connected(self, node: Node) -> None:
        self.note_connected(node)
        if self.is_leader and node.id in self._progress:
            progress = self._progress[node.id]
            progress.restart(self.journal.last_index + 1)
            # What this follower acknowledged before counts no more: it may come back with another disk.
            progress.match = 0
            self._send(node.id, self._heartbeat(self._round))

    def _on_disconnected(self, node: Node) -> None:
        self.note_disconnected(node)
        if self.halted:
            return
        if self.is_leader and node.id in self._progress:
            progress = self._progress[node.id]
            progress.restart(self.journal.last_index + 1)
            progress.match = 0
        elif node.id == self.leader_id:
            low, high = self.settings.early_election_ms
            early = self._clock() + self._rng.uniform(low, high) / 1000
            self.set_election_deadline(min(self.election_deadline, early))

    def note_alive(self, node: Node, sends_entries: bool) -> None:
        """Bytes of `node` came in. They show that it lives while a long message is still under way.

        Pieces of entries come only from who leads, or did so when it queued them; pings come from anybody,
        also from a leader that has stepped down, so a follower does not count them.
        """
        if self.halted:
            return
        if self.is_leader:
            progress = self._progress.get(node.id)
            if progress is not None and progress.inflight:
                progress.contact_s = self._clock()
        elif sends_entries and self.state == FOLLOWER and node.id == self.leader_id:
            self._heard_s = self._clock()
            self._election_in(*self.settings.election_timeout_ms)

    # ------------------------------------------------------------------ following

    def _accept_leader(self, node: Node, term: int) -> bool:
        """Whether a message of a leader counts; if so this node follows it."""
        if term < self.term:
            self._reply(node, Rejected(self.term, 0, 0, 0))
            return False
        if term == self.term and self.state == LEADER:
            raise Fault(f"{node.id} and {self.node_id} both lead term {term}: a vote must have been lost")
        if term > self.term or self.state != FOLLOWER or self.leader_id != node.id:
            self._become_follower(term, node.id)
        if term != self._verified_term:
            # A term has one leader, so within it what was verified once stays so.
            self._verified_term = term
            self._verified = self.commit_index
            self._leader_commit = 0
        self._attempts = 0
        self._heard_s = self._told_s = self._clock()
        self._election_in(*self.settings.election_timeout_ms)
        return True

    def _on_heartbeat(self, node: Node, message: Heartbeat) -> None:
        if not self._accept_leader(node, message.term):
            return
        self._leader_commit = max(self._leader_commit, message.commit)
        self._floor = max(self._floor, message.floor)
        if message.round:
            self._answer_heartbeat(node, message)

    def _answer_heartbeat(self, node: Node, message: Heartbeat) -> None:
        """The term it stands for must be durable: else a restart could forget it and vote in an older one."""
        reply = HeartbeatReply(self.term, message.round)
        if self.journal.dirty:
            self._hold(node.id, reply)
        else:
            self._reply(node, reply)

    def _on_append(self, node: Node, message: Append) -> None:
        if not self._accept_leader(node, message.term):
            return
        failpoint("raft.append_received")
        self._floor = max(self._floor, message.floor)
        journal = self.journal
        prev_index, prev_term, entries = message.prev_index, message.prev_term, message.entries
        if prev_index > journal.last_index:
            self._reject(node, prev_index, journal.last_index + 1, 0)
            return
        if prev_index < journal.base_index:
            # What is compacted is committed, hence equal: look at the rest only.
            entries = entries[journal.base_index - prev_index :]
            if not entries:
                self._hold(node.id, Accepted(self.term, max(self._verified, journal.base_index)))
                return
            prev_index, prev_term = journal.base_index, journal.term_at(journal.base_index)
        held_term = journal.term_at(prev_index)
        if held_term != prev_term:
            if prev_index <= self.commit_index:
                raise Fault(
                    f"the committed entry at index {prev_index} has term {held_term} here and {prev_term} at "
                    f"the leader {node.id}: the logs contradict each other; nothing was dropped"
                )
            self._reject(
                node, prev_index, max(journal.first_of_term_at(prev_index), self.commit_index + 1), held_term
            )
            return
        self._store(prev_index, entries)
        self._verified = max(self._verified, prev_index + len(entries))
        self._leader_commit = max(self._leader_commit, message.commit)
        self._hold(node.id, Accepted(self.term, self._verified))

    def _store(self, prev_index: int, entries: tuple[WireEntry, ...]) -> None:
        """Keep what is here already; cut only at the first entry whose term conflicts; append the rest."""
        journal = self.journal
        index = prev_index
        for entry in entries:
            index += 1
            if index <= journal.last_index:
                if journal.term_at(index) == entry.term:
                    continue
                journal.truncate_from(index)  # a Fault when that is at or below the commit index
            journal.append(entry.term, entry.payload, entry.crc)

    def _reject(self, node: Node, prev_index: int, conflict_index: int, conflict_term: int) -> None:
        self._hold(node.id, Rejected(self.term, prev_index, conflict_index, conflict_term))

    def _follow_commit(self) -> None:
        """Called after a flush: what is committed here is also durable here."""
        index = min(self._leader_commit, self._verified, self.journal.durable_index)
        if index > self.commit_index:
            self._commit(index)

    def _commit(self, index: int) -> None:
        failpoint("raft.before_commit")
        self.set_commit(index)
        if self._on_commit is not None:
            self._on_commit(index)
        failpoint("raft.after_commit")

    # ------------------------------------------------------------------ leading

    def _on_follower_reply(self, node: Node, message: Accepted | Rejected | HeartbeatReply) -> None:
        if message.term > self.term:
            self._become_follower(message.term, None)
            return
        if not self.is_leader or message.term != self.term:
            return  # of an earlier term: it says nothing about this one
        now = self._clock()
        progress = self._progress[node.id]
        progress.contact_s = now
        match message:
            case Accepted(_, match_index):
                if match_index <= self.journal.last_index:
                    progress.accepted(match_index, now)
                    self._unservable.discard(node.id)
            case Rejected():
                self._on_rejected(progress, message)
            case HeartbeatReply(_, number):
                self._on_heartbeat_reply(progress, number)

    def _on_rejected(self, progress: Progress, message: Rejected) -> None:
        if progress.is_stale_rejection(message.prev_index):
            return
        next_index = message.conflict_index
        if message.conflict_term:
            last = self.journal.last_of_term(message.conflict_term)
            if last is not None and last < message.prev_index:
                next_index = last + 1
        progress.step_back(next_index, message.prev_index)

    def _on_heartbeat_reply(self, progress: Progress, number: int) -> None:
        if number > self._round:
            return
        if number > progress.acked_round:
            progress.acked_round = number
            progress.proven_s = self._round_began.get(number, progress.proven_s)
            self._answer_reads()

    def _has_quorum(self, now: float) -> bool:
        window_s = self.settings.dead_after_ms / 1000
        alive = sum(now - progress.contact_s <= window_s for progress in self._progress.values())
        return alive + 1 >= self.quorum

    def _heartbeat(self, number: int) -> Heartbeat:
        return Heartbeat(self.term, self.commit_index, self._floor, number)

    def _beat(self, now: float) -> None:
        """Begin a quorum round: a heartbeat with a new number to everybody."""
        self._round += 1
        self._round_began[self._round] = now
        self._round_began.pop(self._round - 1000, None)
        self._heartbeat_due_s = now + self._heartbeat_s
        for peer, progress in self._progress.items():
            progress.commit_sent = self.commit_index
            self._send(peer, self._heartbeat(self._round))

    def _begin_round_for_reads(self, now: float) -> None:
        """Reads wait for a commit in the own term: before it the commit index may lag behind the truth."""
        if self._new_reads and self.commit_index >= self._first_own_index:
            self._beat(now)
            self._rounds.append(_Round(self._round, self.commit_index, self._new_reads))
            self._new_reads = []
            self._answer_reads()

    def _answer_reads(self) -> None:
        if not self._rounds:
            return
        acked = sorted((progress.acked_round for progress in self._progress.values()), reverse=True)
        proven = self._round if self.quorum == 1 else acked[self.quorum - 2]
        while self._rounds and self._rounds[0].number <= proven:
            done = self._rounds.pop(0)
            for answer in done.waiting:
                answer(done.index)

    def _advance_commit(self) -> None:
        """A majority durably holds it (this node counts by what it has flushed), and it is of this term."""
        journal = self.journal
        matched = sorted(
            [journal.durable_index, *(progress.match for progress in self._progress.values())], reverse=True
        )
        index = min(matched[self.quorum - 1], journal.durable_index)
        if index > self.commit_index and journal.term_at(index) == self.term:
            self._commit(index)

    def _notify_commit(self) -> None:
        """Followers learn of a commit at once, if nothing else is on its way to tell them."""
        for peer, progress in self._progress.items():
            if progress.commit_sent < self.commit_index and not progress.probing and self.is_connected(peer):
                progress.commit_sent = self.commit_index
                self._send(peer, self._heartbeat(0))

    def _replicate(self, now: float) -> None:
        self._shared = None
        for peer, progress in self._progress.items():
            if not self.is_connected(peer):
                continue
            stalled = now - progress.moved_s > STALL_TIMEOUTS * self._election_high_s
            if progress.inflight and stalled:
                progress.restart(progress.match + 1)
            if progress.probing:
                if now >= progress.probe_due_s:
                    self._probe(peer, progress, now)
            else:
                self._stream(peer, progress, now)
        self._shared = None

    def _probe(self, peer: str, progress: Progress, now: float) -> None:
        journal = self.journal
        prev_index = progress.next_index - 1
        progress.probe_due_s = now + 2 * self._heartbeat_s
        if prev_index < journal.base_index:
            if peer not in self._unservable:
                self._unservable.add(peer)
                logger.error(
                    "raft %s: %s needs entries from index %d on, but they are compacted away up to %d: it "
                    "cannot catch up from the log alone",
                    self.node_id,
                    peer,
                    progress.next_index,
                    journal.base_index,
                )
            return
        message, size = self._append_message(progress.next_index, PROBE_BYTES)
        if size > PROBE_BYTES:
            message = Append(
                self.term, prev_index, message.prev_term, self.commit_index, self._floor, entries=()
            )
        self._send(peer, message)

    def _stream(self, peer: str, progress: Progress, now: float) -> None:
        last_index = self.journal.last_index
        while progress.next_index <= last_index and progress.inflight_bytes < self.settings.inflight_bytes:
            if progress.next_index <= self.journal.base_index:
                progress.restart(progress.next_index)
                return
            message, size = self._append_message(progress.next_index, self.settings.append_bytes)
            failpoint("raft.before_send")
            if not self._send(peer, message):
                return
            failpoint("raft.after_send")
            progress.commit_sent = self.commit_index
            progress.sent(message.prev_index + len(message.entries), size, now)

    def _append_message(self, next_index: int, max_bytes: int) -> tuple[Append, int]:
        """Entries from next_index on. Followers at one place get one and the same message: encoded once."""
        journal = self.journal
        key = (next_index, journal.last_index, self.commit_index, self._floor, max_bytes)
        if self._shared is None or self._shared[0] != key:
            rows = journal.read(next_index, journal.last_index, max_bytes)
            entries = tuple(WireEntry(row.term, row.crc, row.payload) for row in rows)
            size = sum(len(row.payload) + 64 for row in rows)
            prev_term = journal.term_at(next_index - 1)
            message = Append(self.term, next_index - 1, prev_term, self.commit_index, self._floor, entries)
            self._shared = (key, message, size)
        return self._shared[1], self._shared[2]

    # ------------------------------------------------------------------ handing over

    def _best_follower(self) -> str | None:
        connected = [peer for peer in self._progress if self.is_connected(peer)]
        return max(connected, key=lambda peer: (self._progress[peer].match, peer), default=None)

    def _continue_transfer(self, now: float) -> None:
        best = self._best_follower()
        caught_up = best is not None and self._progress[best].match == self.journal.last_index
        if best is not None and caught_up and not self._transfer_sent:
            logger.info("raft %s: hands leadership of term %d to %s", self.node_id, self.term, best)
            self._transfer_sent = True
            self._send(best, TimeoutNow(self.term))
        if self._transfer_deadline_s is not None and now >= self._transfer_deadline_s:
            self._transfer_deadline_s = None
            if self.barred:
                self._become_follower(self.term, None)

    # ------------------------------------------------------------------ sending

    def _send(self, peer: str, message: Message) -> bool:
        """At once: only for what promises nothing."""
        return self.transport.send(self.peers[peer], message)

    def _reply(self, node: Node, message: Message) -> None:
        """At once if nothing waits for the disk: the term that a reply states is durable before it leaves."""
        if self.journal.dirty:
            self._held.append((node, message))
        else:
            self.transport.send(node, message)

    def _hold(self, peer: str, message: Message) -> None:
        """After the next flush."""
        self._held.append((self.peers[peer], message))


def _describe(error: Exception) -> str:
    if isinstance(error, Fault):
        return error.message
    return f"the journal could not be written or read ({type(error).__name__}: {error})"
