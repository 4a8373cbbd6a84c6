"""Bugs of the log that pysyncobj has: the numbered hazards."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cluster.raft.election import Election
from cluster.raft.following import Following
from cluster.raft.journal import Journal
from cluster.raft.node import CorrectedNode
from cluster.raft.outbox import Outbox
from cluster.raft.replication import Replication
from tests.simulation.disk import SimulatedStorage, SimulatedStore

if TYPE_CHECKING:
    from cluster.raft.messages import Accepted, HeartbeatReply, Message, Rejected, WireEntry
    from cluster.raft.storage import Batch


class AcksCarryNoTerm(CorrectedNode):
    def _on_follower_reply(self, peer: str, message: Accepted | Rejected | HeartbeatReply) -> None:
        super()._on_follower_reply(peer, replace(message, term=max(message.term, self.term)))


class ForgivingJournal(Journal):
    """Cuts wherever it is told to."""

    def truncate_from(self, index: int) -> None:
        held = self._meta.commit_index
        self._meta = replace(self._meta, commit_index=0)
        super().truncate_from(index)
        self._meta = replace(self._meta, commit_index=min(held, self.last_index))


class TruncateAlways(Following):
    def store(self, prev_index: int, entries: tuple[WireEntry, ...]) -> None:
        if prev_index < self.core.journal.last_index:
            self.core.journal.truncate_from(prev_index + 1)
        super().store(prev_index, entries)


class TruncateWhatIsCommitted(TruncateAlways):
    """As the library does: the commit index follows the shorter log."""

    def store(self, prev_index: int, entries: tuple[WireEntry, ...]) -> None:
        super().store(prev_index, entries)
        if self.core.commit_index > self.core.journal.last_index:
            self.core._SyncObj__raftCommitIndex = self.core.journal.last_index


class AnswerWithOwnEnd(Following):
    """A follower whose entry conflicts names its own end as the place to go on; see `ObeyAnyEnd`."""

    def reject(self, peer: str, prev_index: int, conflict_index: int, conflict_term: int) -> None:
        super().reject(peer, prev_index, self.core.journal.last_index + 1, 0)


class ObeyAnyEnd(Replication):
    """The leader goes on wherever a rejection says."""

    def on_rejected(self, peer: str, message: Rejected) -> None:
        end = self.core.journal.last_index + 1
        self.progress[peer].restart(max(1, min(message.conflict_index, end)))


class SendBeforeFsync(Outbox):
    def hold(self, peer: str, message: Message) -> None:
        self.send(peer, message)


class ForgetfulStorage(SimulatedStorage):
    """Returns before the fsync, which comes now and then."""

    writes = 0

    def put(self, batch: Batch) -> None:
        self.disk.log_unsynced()
        super().put(batch)

    def sync(self) -> None:
        self.writes += 1
        if self.writes % 20 == 0:
            super().sync()


class UnsyncedTailCounts(SimulatedStorage):
    """What an earlier process did not live to sync is taken for durable."""

    def settle(self) -> None:
        return None


class UnsyncedMarkerCounts(SimulatedStore):
    def settle(self) -> None:
        return None


class VoteNotStored(Journal):
    def flush(self) -> None:
        held = self._meta.vote
        self._meta = replace(self._meta, vote=None)
        super().flush()
        self._meta = replace(self._meta, vote=held)


class TermNotRestored(CorrectedNode):
    """Term and vote are not read back at a start (the library's issues 201 and 202)."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        if self.journal.last_index:
            self.set_term(self.journal.last_term, None)


class NoCheckQuorum(Replication):
    def has_quorum(self, now: float) -> bool:
        return True


class NoPreVote(Election):
    def stand(self, now: float) -> None:
        self.elect(transfer=False)


class NoStickiness(Election):
    def is_leader_alive(self) -> bool:
        return False


class CompactWhatFollowersNeed(CorrectedNode):
    def _compact(self) -> None:
        limit = min(self._applied, self.commit_index)
        if limit > self.journal.base_index:
            self.journal.compact(limit, self.settings.journal_budget_bytes)


class CompactWhatIsNotApplied(CorrectedNode):
    def _compact(self) -> None:
        self._applied = self.commit_index
        super()._compact()
