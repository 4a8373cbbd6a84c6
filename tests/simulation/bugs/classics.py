"""Bugs of the log that any implementation of Raft may have."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cluster.raft.election import Election
from cluster.raft.following import Following
from cluster.raft.journal import Journal
from cluster.raft.messages import Accepted
from cluster.raft.node import CorrectedNode
from cluster.raft.outbox import Outbox
from cluster.raft.replication import Replication

if TYPE_CHECKING:
    from cluster.raft.messages import Append, Message, Vote, WireEntry


class OwnVoteTwice(Election):
    def count(self, now: float) -> None:
        if self.pre_vote_term is None and sum(self.votes.values()) + 1 >= (len(self.core.peers) + 1) // 2 + 1:
            self.core.become_leader(now)


class TwoVotesATerm(Election):
    def on_vote(self, peer: str, message: Vote) -> None:
        if message.term == self.core.term and self.core.state == 0:
            self.core._SyncObj__votedForNodeId = None
        super().on_vote(peer, message)


class VoteForAnyLog(Election):
    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        return True


class CompareLogsByLength(Election):
    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        return last_index >= self.core.journal.last_index


class CommitOldTermByCount(Replication):
    def advance_commit(self) -> None:
        journal = self.core.journal
        matched = {peer: progress.match for peer, progress in self.progress.items()}
        matched[self.core.node_id] = journal.durable_index
        index = min(self.core.reached(matched, 0), journal.durable_index)
        if index > self.core.commit_index:
            self.core.commit(index)


class LazyJournal(Journal):
    """While `is_lazy` only every fourth flush does anything."""

    is_lazy = False
    calls = 0

    def flush(self) -> None:
        self.calls += 1
        if not self.is_lazy or self.calls % 4 == 0:
            super().flush()


class CountUnsynced(Replication):
    """The leader counts its own copy before its fsync."""

    def advance_commit(self) -> None:
        core, journal = self.core, self.core.journal
        matched = {peer: progress.match for peer, progress in self.progress.items()}
        matched[core.node_id] = journal.last_index
        index = core.reached(matched, 0)
        if index > core.commit_index and journal.term_at(index) == core.term:
            core.commit(index)


class LeaderCountsUnsynced(CorrectedNode):
    """The leader fsyncs by and by, and counts its own copy before."""

    journal: LazyJournal
    replication_type = CountUnsynced

    def _tick(self) -> None:
        self.journal.is_lazy = self.state == 2
        super()._tick()


class FollowerCommitsUnverified(Following):
    """Commit up to the leader's index whatever the entries here are."""

    def advance_commit(self) -> None:
        index = min(self.leader_commit, self.core.journal.durable_index)
        if index > self.core.commit_index:
            self.core.commit(index)


class AckUnverifiedTail(Outbox):
    def hold(self, peer: str, message: Message) -> None:
        if type(message) is Accepted:
            message = replace(message, match=self.journal.last_index)
        super().hold(peer, message)


class SmallQuorum(CorrectedNode):
    def quorum_of(self, voters: frozenset[str]) -> int:
        return len(voters) // 2


class SkipConsistencyCheck(Following):
    """Takes entries whatever comes before them, as long as there is something."""

    def on_append(self, peer: str, message: Append) -> None:
        journal = self.core.journal
        if journal.base_index <= message.prev_index <= journal.last_index:
            message = replace(message, prev_term=journal.term_at(message.prev_index))
        super().on_append(peer, message)


class FirstEntryOnly(Following):
    """An entry that is here already is taken for the leader's by its index alone."""

    def store(self, prev_index: int, entries: tuple[WireEntry, ...]) -> None:
        journal = self.core.journal
        held = journal.last_index - prev_index
        if held < len(entries):
            for entry in entries[max(0, held) :]:
                journal.append(max(entry.term, journal.last_term), entry.payload)


class OldLeaderObeyed(Following):
    """Messages of leaders of earlier terms count."""

    def accept_leader(self, peer: str, term: int) -> bool:
        return super().accept_leader(peer, max(term, self.core.term) if self.core.state == 0 else term)
