"""The log of a follower: what it takes from its leader, what it acknowledges, what it knows is committed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.errors import Fault
from cluster.failpoint import failpoint
from cluster.raft.freshness import Stamps, conclusion
from cluster.raft.interface import Lack
from cluster.raft.messages import Accepted, Append, Heartbeat, HeartbeatReply, Rejected
from cluster.raft.stock import FOLLOWER, LEADER
from cluster.staleness import NOTHING_KNOWN, newer

if TYPE_CHECKING:
    from cluster.raft.core import Core
    from cluster.raft.election import Election
    from cluster.raft.messages import Unservable, WireEntry


class Following:
    """One node's side of a leader's messages."""

    def __init__(self, core: Core, election: Election) -> None:
        self.core = core
        self.election = election
        self.told_s = float("-inf")
        """When a leader's last whole message arrived."""
        self.known = NOTHING_KNOWN
        """The newest of what leaders proved; also what this node knew when it led."""
        self._answered = Stamps()
        """When this process answered which round of the term."""
        self.leader_commit = 0
        self.lacks: Lack | None = None
        """What a leader said that it cannot send any more; until one sends what fits."""
        self.verified = core.journal.commit_index
        """This far the log equals the present leader's."""
        self.verified_term = 0

    # ------------------------------------------------------------------ messages

    def accept_leader(self, peer: str, term: int) -> bool:
        """Whether a message of a leader counts; if so this node follows it."""
        core = self.core
        if term < core.term:
            core.outbox.reply(peer, Rejected(core.term, 0, 0, 0))
            return False
        if term == core.term and core.state == LEADER:
            raise Fault(f"{peer} and {core.node_id} both lead term {term}: a vote must have been lost")
        if term > core.term or core.state != FOLLOWER or core.leader_id != peer:
            core.become_follower(term, peer)
        if term != self.verified_term:
            # A term has one leader, so within it what was verified once stays so.
            self.verified_term = term
            self.verified = core.commit_index
            self.leader_commit = 0
            self._answered.clear()
        self.told_s = core.clock()
        core.removed_by = None
        self.election.attempts = 0
        self.election.leader_heard(self.told_s)
        return True

    def on_heartbeat(self, peer: str, message: Heartbeat) -> None:
        if not self.accept_leader(peer, message.term):
            return
        self.leader_commit = max(self.leader_commit, message.commit)
        self.core.floor = max(self.core.floor, message.floor)
        if message.echo:
            self.learn(message)
        if message.round:
            self._answered.note(message.round, self.core.clock())
            # The term it stands for must be durable: else a restart could forget it and vote in an older one.
            self.core.outbox.reply(peer, HeartbeatReply(self.core.term, message.round))

    def learn(self, message: Heartbeat) -> None:
        """How old the leader's commit index is, by what it echoes of this node's own answers."""
        answered_s, drift = self._answered.at(message.echo), self.core.settings.max_drift
        concluded = conclusion(message.commit, answered_s, message.heard_us, message.led_us, drift)
        self.known = newer(self.known, concluded)

    def on_append(self, peer: str, message: Append) -> None:
        if not self.accept_leader(peer, message.term):
            return
        failpoint("raft.append_received")
        core, journal = self.core, self.core.journal
        core.floor = max(core.floor, message.floor)
        self.leader_commit = max(self.leader_commit, message.commit)
        prev_index, prev_term, entries = message.prev_index, message.prev_term, message.entries
        if prev_index > journal.last_index:
            self.reject(peer, prev_index, journal.last_index + 1, 0)
            return
        if prev_index < journal.base_index:
            # What is compacted is committed, hence equal: look at the rest only.
            entries = entries[journal.base_index - prev_index :]
            if not entries:
                core.outbox.hold(peer, Accepted(core.term, max(self.verified, journal.base_index)))
                return
            prev_index, prev_term = journal.base_index, journal.term_at(journal.base_index)
        held_term = journal.term_at(prev_index)
        if held_term != prev_term:
            if prev_index <= core.commit_index:
                raise Fault(
                    f"the committed entry at index {prev_index} has term {held_term} here and {prev_term} at "
                    f"the leader {peer}: the logs contradict each other; nothing was dropped"
                )
            conflict_index = max(journal.first_of_term_at(prev_index), core.commit_index + 1)
            self.reject(peer, prev_index, conflict_index, held_term)
            return
        self.store(prev_index, entries)
        self.lacks = None
        self.verified = max(self.verified, prev_index + len(entries))
        core.outbox.hold(peer, Accepted(core.term, self.verified))

    def on_unservable(self, peer: str, message: Unservable) -> None:
        """The leader cannot bring this log up to date; entries may have overtaken this word."""
        if self.accept_leader(peer, message.term) and message.needs > self.verified:
            self.lacks = Lack(message.needs, message.compacted)

    def reject(self, peer: str, prev_index: int, conflict_index: int, conflict_term: int) -> None:
        """See `messages.Rejected`."""
        self.core.outbox.hold(peer, Rejected(self.core.term, prev_index, conflict_index, conflict_term))

    # ------------------------------------------------------------------ the log

    def store(self, prev_index: int, entries: tuple[WireEntry, ...]) -> None:
        """Keep what is here already; cut only at the first entry whose term conflicts; append the rest."""
        journal = self.core.journal
        index = prev_index
        for entry in entries:
            index += 1
            if index <= journal.last_index:
                if journal.term_at(index) == entry.term:
                    continue
                journal.truncate_from(index)  # a Fault when that is at or below the commit index
            journal.append(entry.term, entry.payload, entry.crc)
        self.core.adopt()

    def advance_commit(self) -> None:
        """Called after a flush: what is committed here is also durable here."""
        index = min(self.leader_commit, self.verified, self.core.journal.durable_index)
        if index > self.core.commit_index:
            self.core.commit(index)
