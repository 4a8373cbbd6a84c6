"""One Raft node without I/O: messages, ticks and proposals in, messages and journal writes out.

Raft as in figure 2 of the paper with pre-vote, check-quorum, leader stickiness, read index and leadership
transfer of the thesis, on pysyncobj's SyncObj (see `stock.py`). Time, randomness, network and disk are
constructor arguments; nothing here starts a thread, sleeps or looks at a wall clock. What is decided is in
the parts (`election.py`, `following.py`, `replication.py`, `read_rounds.py`, `hand_over.py`); here is the
order in which they act.

One rule orders a tick: what promises nothing (entries to followers, heartbeats, pre-votes) leaves at once;
then the journal is flushed; only then leave the votes, acks and vote requests that were waiting for it, and
only then does a leader count itself. Handlers never flush, so one tick costs one fsync however much came in.
"""

from __future__ import annotations

import logging
import sqlite3
from typing import TYPE_CHECKING

from cluster.errors import Fault, NotLeader
from cluster.raft.configuration import Circumstances, changed, encode_configuration
from cluster.raft.core import Core
from cluster.raft.election import Election
from cluster.raft.following import Following
from cluster.raft.hand_over import HandOver
from cluster.raft.interface import Admit
from cluster.raft.messages import (
    Accepted,
    Admitted,
    Append,
    Forgotten,
    Heartbeat,
    HeartbeatReply,
    Hello,
    Message,
    PreVote,
    PreVoteReply,
    Rejected,
    Removed,
    TimeoutNow,
    Unservable,
    Vote,
    VoteReply,
)
from cluster.raft.read_rounds import ReadRounds
from cluster.raft.replication import Replication
from cluster.raft.retention import Retention
from cluster.raft.standing import Standings
from cluster.raft.stock import CANDIDATE, FOLLOWER, LEADER
from cluster.staleness import newer

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

    from pysyncobj.node import Node
    from pysyncobj.transport import Transport

    from cluster.raft.hand_over import Answer
    from cluster.raft.interface import Change, Member
    from cluster.raft.journal import Journal
    from cluster.raft.settings import RaftSettings
    from cluster.staleness import Knowledge

logger = logging.getLogger(__name__)


class CorrectedNode(Core):
    """See the module. Not thread-safe: one thread (or the simulation) makes all calls.

    Its members are those of the journal's configuration. `on_commit(index)` is called as soon as the commit
    index moves, before the tick's fsync, `on_members(members)` when others take part. The parts'
    classes are attributes of the class, so that a test may put a broken one in a part's place.
    """

    election_type: type[Election] = Election
    following_type: type[Following] = Following
    replication_type: type[Replication] = Replication
    reads_type: type[ReadRounds] = ReadRounds
    hand_over_type: type[HandOver] = HandOver
    standings_type: type[Standings] = Standings
    retention_type: type[Retention] = Retention

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
        on_members: Callable[[tuple[Member, ...]], None] | None = None,
    ) -> None:
        self._on_members = on_members
        self._told_configuration = 0
        self._applied = 0
        self._ticked_s = clock()
        super().__init__(node_id, journal, transport, settings, clock=clock, rng=rng, on_commit=on_commit)
        self.election = self.election_type(self)
        self.following = self.following_type(self, self.election)
        self.replication = self.replication_type(self)
        self.reads = self.reads_type(self, self.replication)
        self.hand_over = self.hand_over_type(self, self.replication)
        self.standings = self.standings_type(self, self.replication)
        self.retention = self.retention_type(self)
        transport.setOnMessageReceivedCallback(self._on_message)
        transport.setOnNodeConnectedCallback(self._on_connected)
        transport.setOnNodeDisconnectedCallback(self._on_disconnected)
        self.election.wait(*settings.early_election_ms)
        self.standings.found()

    # ------------------------------------------------------------------ looking

    def match_indices(self) -> dict[str, int]:
        """How far each follower's log is known to equal this leader's; empty on others."""
        if not self.is_leader:
            return {}
        return {peer: progress.match for peer, progress in self.replication.progress.items()}

    def leader_commit(self) -> int | None:
        """The commit index of the present leader; None before it was heard."""
        if self.is_leader:
            return self.commit_index
        heard = self.following
        return heard.leader_commit if heard.verified_term == self.term else None

    def quorum_contact_s(self) -> float:
        """The time at which this node was last surely in touch with a majority; -inf for never."""
        return self.reads.proven_s() if self.is_leader else self.following.told_s

    def known(self) -> Knowledge:
        """How far the log is surely complete, and as of when."""
        heard = self.following.known
        return newer(heard, self.reads.known()) if self.is_leader else heard

    def next_deadline_s(self) -> float:
        """When the next tick is due if nothing arrives before."""
        if self.halted:
            return self.clock() + 3600
        if self.state != LEADER:
            return self.election_deadline
        deadline = self.reads.heartbeat_due_s
        if self.hand_over.deadline_s is not None:
            deadline = min(deadline, self.hand_over.deadline_s)
        return deadline

    def may_vote(self) -> bool:
        return self.standings.may_vote()

    def say_again(self) -> None:
        self.standings.say_again()

    def is_full(self, *, leading: bool) -> bool:
        """See `Retention.is_full`."""
        return self.retention.is_full(self._applied, leading=leading)

    def counts(self, peer: str) -> bool:
        return self.standings.counts(peer)

    def is_needed(self) -> bool:
        return self.standings.is_needed()

    def may_change(self) -> bool:
        journal = self.journal
        return self.is_leader and min(journal.last_index, self.commit_index) >= max(
            journal.configuration_index, self.reads.first_own_index
        )

    # ------------------------------------------------------------------ asking

    def propose(self, payload: bytes) -> tuple[int, int]:
        """Append `payload` as leader: (index, term). Sent and made durable by the next tick.

        Raises:
            NotLeader: nothing was appended.
        """
        if not self.is_leader or self.barred or self.hand_over.is_under_way:
            leader = self.leader_id
            raise NotLeader(leader if leader != self.node_id else None)
        row = self.journal.append(self.term, payload)
        return row.index, row.term

    def change(self, change: Change, in_settings: Mapping[str, tuple[str, str]]) -> tuple[int, int]:
        """Append the configuration that `change` makes, as leader: (index, term). In force at once.

        `in_settings`: the addresses (log, http) of members of which no configuration says them.

        Raises:
            NotLeader, ChangeRefused, ChangeNotNow: nothing was appended.
        """
        if not self.is_leader or self.barred or self.hand_over.is_under_way:
            leader = self.leader_id
            raise NotLeader(leader if leader != self.node_id else None)
        after = changed(self.configuration, change, self._circumstances(in_settings))
        row = self.journal.append(self.term, encode_configuration(after))
        logger.info("raft %s: %s makes configuration %d", self.node_id, change, after.number)
        self.adopt()
        if isinstance(change, Admit):
            member = after.member(change.id)
            self.standings.let_in(change.id, "" if member is None else member.incarnation, row.index)
        return row.index, row.term

    def _circumstances(self, in_settings: Mapping[str, tuple[str, str]]) -> Circumstances:
        now, settings = self.clock(), self.settings
        progress = self.replication.progress
        present = {
            peer
            for peer, it in progress.items()
            if self.is_connected(peer)
            and self.standings.has_vote(peer)
            and now - it.contact_s <= settings.dead_after_s
        }
        return Circumstances(
            self.may_change(),
            frozenset({self.node_id, *present}),
            {peer: it.match for peer, it in progress.items()},
            self.journal.last_index,
            settings.catch_up_entries,
            in_settings,
            self.standings.without_vote(),
        )

    def on_configuration(self, members: tuple[Member, ...]) -> None:
        now = self.configuration
        logger.info(
            "raft %s: the members are %s (configuration %d)",
            self.node_id,
            ", ".join(f"{it.id}{'' if it.is_voter else ' (learner)'}" for it in now.members) or "nobody",
            now.number,
        )
        if self.state == LEADER:
            self.replication.on_members(self.clock())
            self.reads.on_members()
        self.standings.on_configuration()
        if self._on_members is not None:
            self._on_members(members)

    def read_index(self, answer: Callable[[int | None], None]) -> None:
        """Call `answer` with a read index once a quorum round that begins after now has proven it.

        None: this node is not, or no longer, the leader.
        """
        if self.is_leader and not self.barred:
            self.reads.ask(answer)
        else:
            answer(None)

    def set_applied(self, index: int) -> None:
        """The state machine has durably applied up to `index`."""
        self._applied = max(self._applied, index)

    def transfer(self, to: str | None = None, answer: Answer = lambda why: None) -> None:
        """Hand leadership to `to`, or to the most caught-up follower; no proposals are taken meanwhile.

        `answer` is told once: None when this node does not lead any more, else why it still does.
        """
        self.hand_over.begin(to, answer)

    def bar(self, reason: str) -> None:
        """A fault outside the log: hand leadership over and never lead again; go on voting and storing."""
        if self.fault is None:
            self.fault = reason
        self.barred = True
        self.transfer()
        if not self.other_voters and self.is_leader:
            self.become_follower(self.term, None)

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
        self.outbox.clear()
        if self.state == LEADER:
            best = self.hand_over.best()
            if best is not None:
                self.outbox.send(best, TimeoutNow(self.term))
            self._leave_leadership()
        self.halted = True
        self.set_state(FOLLOWER)
        self.set_leader(None)

    def _doDestroy(self) -> None:
        """Stop as a crash would: nothing is flushed, nothing more is sent."""
        self.outbox.clear()
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
        now = self.clock()
        self.adopt()
        if self.state == LEADER:
            self._lead(now)
        elif now >= self.election_deadline:
            self.election.stand(now)
        if self.state == LEADER:
            self.standings.lead(now)
            self.replication.advance_commit()
            self.reads.begin_for_reads(now)
            self.replication.replicate(now)
        self._compact()
        self._ticked_s = now
        self.journal.flush()
        self.outbox.release()
        if self.state == LEADER:
            self.replication.advance_commit()
            self.replication.notify_commit()
            self._step_down_if_removed()
        elif self.state == CANDIDATE:
            self.election.count(now)
        else:
            self.following.advance_commit()
        self._tell_removed()

    def _tell_removed(self) -> None:
        number = self.journal.committed_configuration.number
        if number != self._told_configuration:
            self._told_configuration = number
            self.standings.tell_removed()

    def _step_down_if_removed(self) -> None:
        """A leader that was removed leads until that is committed; then one of the others does."""
        if self.may_change() and self.configuration.member(self.node_id) is None:
            logger.info("raft %s: was removed from the cluster, leads no more", self.node_id)
            best = self.hand_over.best()
            if best is not None:
                self.outbox.send(best, TimeoutNow(self.term))
            self.become_follower(self.term, None)

    def _lead(self, now: float) -> None:
        self.replication.forgive(now - self._ticked_s)
        if not self.replication.has_quorum(now):
            logger.warning(
                "raft %s: lost touch with a majority, steps down in term %d", self.node_id, self.term
            )
            self.become_follower(self.term, None)
            return
        self.hand_over.go_on(now)
        if self.state == LEADER and now >= self.reads.heartbeat_due_s:
            self.reads.beat(now)

    def _compact(self) -> None:
        if self.state == LEADER:
            self.floor = max(self.floor, self.replication.held_by_all())
        limit = min(self.floor, self._applied, self.commit_index)
        if limit > self.journal.base_index:
            self.journal.compact(limit, self.settings.journal_budget_bytes)
        self.retention.compact(min(self._applied, self.commit_index))

    # ------------------------------------------------------------------ changes of role

    def become_follower(self, term: int, leader: str | None) -> None:
        if self.state == LEADER:
            self._leave_leadership()
        if term > self.term:
            self.set_term(term, None)
        if self.state != FOLLOWER:
            self.set_state(FOLLOWER)
            self.election.wait_whole_timeout()
        self.election.give_up()
        if leader != self.leader_id:
            self.set_leader(leader)

    def become_leader(self, now: float) -> None:
        self.election.attempts = 0
        self.set_state(LEADER)
        self.set_leader(self.node_id)
        self.replication.begin(now)
        self.reads.begin()
        self.hand_over.end()
        first = self.reads.first_own_index = self.journal.append(self.term, b"").index
        logger.info("raft %s: leads term %d from index %d", self.node_id, self.term, first)
        self.reads.beat(now)
        self.replication.replicate(now)
        self.journal.flush()
        self.replication.advance_commit()

    def _leave_leadership(self) -> None:
        self.following.told_s = self.quorum_contact_s()
        self.following.known = self.known()
        self.replication.end()
        self.standings.end()
        self.hand_over.end()
        self.reads.end()
        self.set_leader(None)

    # ------------------------------------------------------------------ messages

    def _on_message(self, node: Node, message: Message) -> None:
        """Every message comes in here, from the transport."""
        if self.halted or (node.id not in self.peers and not self._may_say(node.id, message)):
            return
        try:
            self._dispatch(node.id, message)
        except (Fault, sqlite3.Error, OSError) as error:
            self.halt(_describe(error))

    def _may_say(self, stranger: str, message: Message) -> bool:
        """What counts from one that is no member by what this node knows, which may be behind.

        Nothing was asked of it, so its answers do not count. A leader or candidate may be newer than this
        node's configuration, unless it is known to be removed.
        """
        if isinstance(message, Accepted | Rejected | HeartbeatReply | VoteReply | PreVoteReply):
            return False
        return not (isinstance(message, PreVote | Vote) and self.standings.is_removed(stranger))

    def _dispatch(self, peer: str, message: Message) -> None:
        match message:
            case Append():
                if message.entries and self.is_full(leading=False):
                    self.following.accept_leader(peer, message.term)  # it will send this again
                else:
                    self.following.on_append(peer, message)
            case Accepted() | Rejected() | HeartbeatReply():
                self._on_follower_reply(peer, message)
            case Heartbeat():
                self.following.on_heartbeat(peer, message)
            case Unservable():
                self.following.on_unservable(peer, message)
            case PreVote():
                self.election.on_pre_vote(peer, message)
            case PreVoteReply():
                self.election.on_pre_vote_reply(peer, message)
            case Vote():
                self.election.on_vote(peer, message)
            case VoteReply():
                self.election.on_vote_reply(peer, message)
            case TimeoutNow():
                self.election.on_timeout_now(peer, message)
            case Hello():
                self.standings.on_hello(peer, message)
            case Forgotten():
                self.standings.on_forgotten(peer, message)
            case Admitted():
                self.standings.on_admitted(peer, message)
            case Removed():
                self.standings.on_removed(peer, message)

    def _on_follower_reply(self, peer: str, message: Accepted | Rejected | HeartbeatReply) -> None:
        if message.term > self.term:
            self.become_follower(message.term, None)
            return
        if not self.is_leader or message.term != self.term:
            return  # of an earlier term: it says nothing about this one
        now = self.clock()
        self.replication.progress[peer].contact_s = now
        match message:
            case Accepted():
                self.replication.on_accepted(peer, message, now)
            case Rejected():
                self.replication.on_rejected(peer, message)
            case HeartbeatReply():
                self.reads.on_reply(peer, message.round, now)

    # ------------------------------------------------------------------ connections

    def _on_connected(self, node: Node) -> None:
        self.note_connected(node)
        if not self.halted:
            self.standings.connected(node.id)
        self.reads.forget_echo(node.id)
        if self.is_leader and node.id in self.replication.progress:
            self.replication.restart(node.id)
            self.outbox.send(node.id, self.replication.heartbeat(self.reads.number))

    def _on_disconnected(self, node: Node) -> None:
        self.note_disconnected(node)
        self.standings.disconnected(node.id)
        self.reads.forget_echo(node.id)
        if self.halted:
            return
        if self.is_leader and node.id in self.replication.progress:
            self.replication.restart(node.id)
        elif node.id == self.leader_id:
            self.election.leader_lost()

    def note_alive(self, node: Node, sends_entries: bool) -> None:
        """Bytes of `node` came in. They show that it lives while a long message is still under way.

        Pieces of entries come only from who leads, or did so when it queued them; pings come from anybody,
        also from a leader that has stepped down, so a follower does not count them.
        """
        if self.halted:
            return
        if self.is_leader:
            self.replication.bytes_came(node.id)
        elif sends_entries and self.state == FOLLOWER and node.id == self.leader_id:
            self.election.leader_heard(self.clock())


def _describe(error: Exception) -> str:
    if isinstance(error, Fault):
        return error.message
    return f"the journal could not be written or read ({type(error).__name__}: {error})"
