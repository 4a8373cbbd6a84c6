"""Deliberate bugs, one class or function each, that the simulation must find.

Each is a subclass of a real part with one rule broken; `parts_of(name)` puts it in its place. Nothing in
the product knows of them. `python -m tests.simulation.mutation_table` counts the seeds that each one needs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cluster.raft.journal import Journal
from cluster.raft.messages import Accepted, Append, HeartbeatReply, Rejected
from cluster.raft.node import CorrectedNode
from cluster.state.commands import Group
from cluster.state.machine import Machine, Step
from tests.simulation.disk import SimulatedStorage
from tests.simulation.parts import Parts
from tests.simulation.stepped import SteppedApplier, SteppedRaft

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pysyncobj.node import Node

    from cluster.raft.interface import Entry
    from cluster.raft.messages import Message, WireEntry
    from cluster.raft.progress import Progress
    from cluster.raft.storage import Batch
    from cluster.reads import Guarantee
    from cluster.state.catalog import Change
    from cluster.state.machine import Limits, LogEntry


@dataclass(frozen=True)
class Mutation:
    """`hazard` is the number in the list of pysyncobj's hazards, or empty for a classic of its own."""

    name: str
    hazard: str
    bug: str
    parts: Parts


# ---------------------------------------------------------------------- the log: hazards of the stock library


class AcksCarryNoTerm(CorrectedNode):
    def _on_follower_reply(self, node: Node, message: Accepted | Rejected | HeartbeatReply) -> None:
        super()._on_follower_reply(node, replace(message, term=max(message.term, self.term)))


class ForgivingJournal(Journal):
    """Cuts wherever it is told to."""

    def truncate_from(self, index: int) -> None:
        held = self._meta.commit_index
        self._meta = replace(self._meta, commit_index=0)
        super().truncate_from(index)
        self._meta = replace(self._meta, commit_index=min(held, self.last_index))


class TruncateAlways(CorrectedNode):
    def _store(self, prev_index: int, entries: tuple[WireEntry, ...]) -> None:
        if prev_index < self.journal.last_index:
            self.journal.truncate_from(prev_index + 1)
        super()._store(prev_index, entries)


class TruncateWhatIsCommitted(TruncateAlways):
    """As the library does: the commit index follows the shorter log."""

    def _store(self, prev_index: int, entries: tuple[WireEntry, ...]) -> None:
        super()._store(prev_index, entries)
        if self.commit_index > self.journal.last_index:
            self._SyncObj__raftCommitIndex = self.journal.last_index


class AnswerWithOwnEnd(CorrectedNode):
    """A follower whose entry conflicts names its own end as the place to go on; its leader obeys."""

    def _reject(self, node: Node, prev_index: int, conflict_index: int, conflict_term: int) -> None:
        super()._reject(node, prev_index, self.journal.last_index + 1, 0)

    def _on_rejected(self, progress: Progress, message: Rejected) -> None:
        progress.restart(max(1, min(message.conflict_index, self.journal.last_index + 1)))


class AckBeforeFsync(CorrectedNode):
    def _hold(self, peer: str, message: Message) -> None:
        self.transport.send(self.peers[peer], message)


class ForgetfulStorage(SimulatedStorage):
    """Returns before the fsync, which comes now and then."""

    writes = 0

    def write(self, batch: Batch) -> None:
        self.disk.remember_synced()
        super().write(batch)
        self.writes += 1
        if self.writes % 20 == 0:
            self.disk.synced()


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


class NoCheckQuorum(CorrectedNode):
    def _has_quorum(self, now: float) -> bool:
        return True


class NoPreVote(CorrectedNode):
    def _stand(self, now: float) -> None:
        self._elect(transfer=False)


class NoStickiness(CorrectedNode):
    def _is_leader_alive(self) -> bool:
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


# ---------------------------------------------------------------------- the log: classics


class OwnVoteTwice(CorrectedNode):
    def _count_votes(self, now: float) -> None:
        if self._pre_vote_term is None and len(self._granted) + 1 >= self.quorum:
            self._become_leader(now)


class TwoVotesATerm(CorrectedNode):
    def _on_vote(self, node: Node, message: Any) -> None:
        if message.term == self.term and self.state == 0:
            self._SyncObj__votedForNodeId = None
        super()._on_vote(node, message)


class VoteForAnyLog(CorrectedNode):
    def _is_up_to_date(self, last_index: int, last_term: int) -> bool:
        return True


class CompareLogsByLength(CorrectedNode):
    def _is_up_to_date(self, last_index: int, last_term: int) -> bool:
        return last_index >= self.journal.last_index


class CommitOldTermByCount(CorrectedNode):
    def _advance_commit(self) -> None:
        journal = self.journal
        matched = [journal.durable_index, *(progress.match for progress in self._progress.values())]
        index = min(sorted(matched, reverse=True)[self.quorum - 1], journal.durable_index)
        if index > self.commit_index:
            self._commit(index)


class LazyJournal(Journal):
    """While `is_lazy` only every fourth flush does anything."""

    is_lazy = False
    calls = 0

    def flush(self) -> None:
        self.calls += 1
        if not self.is_lazy or self.calls % 4 == 0:
            super().flush()


class LeaderCountsUnsynced(CorrectedNode):
    """The leader fsyncs by and by, and counts its own copy before."""

    journal: LazyJournal

    def _tick(self) -> None:
        self.journal.is_lazy = self.state == 2
        super()._tick()

    def _advance_commit(self) -> None:
        journal = self.journal
        matched = [journal.last_index, *(progress.match for progress in self._progress.values())]
        index = sorted(matched, reverse=True)[self.quorum - 1]
        if index > self.commit_index and journal.term_at(index) == self.term:
            self._commit(index)


class FollowerCommitsUnverified(CorrectedNode):
    """Commit up to the leader's index whatever the entries here are."""

    def _follow_commit(self) -> None:
        index = min(self._leader_commit, self.journal.durable_index)
        if index > self.commit_index:
            self._commit(index)


class AckUnverifiedTail(CorrectedNode):
    def _hold(self, peer: str, message: Message) -> None:
        if type(message) is Accepted:
            message = replace(message, match=self.journal.last_index)
        super()._hold(peer, message)


class SmallQuorum(CorrectedNode):
    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.quorum = (len(self.peers) + 1) // 2


class SkipConsistencyCheck(CorrectedNode):
    """Takes entries whatever comes before them, as long as there is something."""

    def _on_append(self, node: Node, message: Append) -> None:
        journal = self.journal
        if journal.base_index <= message.prev_index <= journal.last_index:
            message = replace(message, prev_term=journal.term_at(message.prev_index))
        super()._on_append(node, message)


class FirstEntryOnly(CorrectedNode):
    """An entry that is here already is taken for the leader's by its index alone."""

    def _store(self, prev_index: int, entries: tuple[WireEntry, ...]) -> None:
        held = self.journal.last_index - prev_index
        if held < len(entries):
            for entry in entries[max(0, held) :]:
                self.journal.append(max(entry.term, self.journal.last_term), entry.payload)


class OldLeaderObeyed(CorrectedNode):
    """Messages of leaders of earlier terms count."""

    def _accept_leader(self, node: Node, term: int) -> bool:
        return super()._accept_leader(node, max(term, self.term) if self.state == 0 else term)


# ---------------------------------------------------------------------- reads


class ReuseReadIndex(CorrectedNode):
    """An index that was proven within the last heartbeats is given to later reads too."""

    proven: tuple[float, int] = (float("-inf"), 0)

    def _begin_round_for_reads(self, now: float) -> None:
        if self._new_reads and now - self.proven[0] < 5 * self._heartbeat_s:
            waiting, self._new_reads = self._new_reads, []
            for answer in waiting:
                answer(self.proven[1])
        elif self._new_reads and self.commit_index >= self._first_own_index:
            self.proven = (now, self.commit_index)
        super()._begin_round_for_reads(now)


class ReadOnOldAcks(CorrectedNode):
    """A leader that a majority has answered lately serves reads without a new round."""

    def _begin_round_for_reads(self, now: float) -> None:
        if self._new_reads and self._has_quorum(now) and self.commit_index >= self._first_own_index:
            waiting, self._new_reads = self._new_reads, []
            for answer in waiting:
                answer(self.commit_index)
        super()._begin_round_for_reads(now)


class ReadWithoutQuorum(CorrectedNode):
    def read_index(self, answer: Callable[[int | None], None]) -> None:
        answer(self.commit_index if self.is_leader else None)


class ReadBeforeOwnCommit(CorrectedNode):
    """A new leader does not wait for the commit of its first entry."""

    def _begin_round_for_reads(self, now: float) -> None:
        held, self._first_own_index = self._first_own_index, 0
        super()._begin_round_for_reads(now)
        self._first_own_index = held


def read_at_own_commit(guarantee: Guarantee, read_index: int | None, commit_index: int) -> int:
    """A linearizable read waits only for what this node knows to be committed."""
    return max(commit_index, guarantee.min_index)


def ignore_token(guarantee: Guarantee, read_index: int | None, commit_index: int) -> int:
    """A session read does not wait for its token."""
    return read_index or 0


class TokenIsApplied(SteppedApplier):
    """A read's token is the applied index, though a call under way may show already."""

    def started_index(self, collection_id: str | None) -> int:
        return self.applied_index


class TokenFromMarker(SteppedApplier):
    """After a restart tokens begin at the applied index, though a part of the next entry may show."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._floor = self._applied


# ---------------------------------------------------------------------- applying


class ApplyOutOfOrder(SteppedApplier):
    def _take(self) -> list[LogEntry]:
        return [
            (index, None if group is None else Group(group.time_ms, group.proposals[::-1]))
            for index, group in super()._take()
        ]


class ApplyUncommitted(SteppedRaft):
    """What is in the journal is applied, committed or not."""

    @property
    def commit_index(self) -> int:
        return self._journal.last_index if self._journal is not None else 0

    def entries(self, start: int, max_bytes: int) -> list[Entry]:
        assert self._journal is not None
        return self._journal.entries(start, self._journal.last_index, max_bytes)


class MarkBeforeCall(SteppedApplier):
    """The step is made durable before the engine's call: a crash in between loses the call."""

    def _do(self, step: Step) -> tuple[Step, Sequence[Change]] | None:
        if step.work is not None:
            self._store.write(step.changes, step.index, step.position)
        return super()._do(step)


class NoIntent(Machine):
    """The ids that a delete by filter found are kept in memory, not in the store."""

    def resolved(self, step: Step, ids: Sequence[str]) -> Step:
        self._intent = tuple(ids)
        return step


class SkipAnEntry(SteppedApplier):
    """After a restart applying goes on one entry too late, if the log has more."""

    def start(self) -> None:
        super().start()
        if 0 < self._applied < self._raft.commit_index:
            cursor = self._machine._cursor
            self._machine._cursor = replace(cursor, index=cursor.index + 1, position=0, part=0)
            self._applied += 1


def forget_requests(items: list[tuple[str, bytes]], limits: Limits) -> Machine:
    """Request ids do not survive a restart."""
    return Machine.load([pair for pair in items if not pair[0].startswith("r/")], limits)


def remember_few(items: list[tuple[str, bytes]], limits: Limits) -> Machine:
    """This node remembers fewer requests than the others."""
    return Machine.load(items, replace(limits, max_requests=3))


def no_intent(items: list[tuple[str, bytes]], limits: Limits) -> Machine:
    return NoIntent.load(items, limits)


class AnswerAtCommitOfAnything(SteppedRaft):
    """A proposal counts as committed when its index is, whoever's entry stands there."""

    def _on_commit(self, index: int) -> None:
        waiting = self._waiting
        self._waiting = type(waiting)(
            (at, self._journal.term_at(at) if self._journal.base_index < at <= index else term, proposal)  # type: ignore[union-attr]
            for at, term, proposal in waiting
        )
        super()._on_commit(index)

    def _settle(self, node: CorrectedNode) -> None:
        """Does not notice that leadership is gone."""


_ALL = (
    Mutation("acks-carry-no-term", "1", "an ack of an earlier term is counted", Parts(node=AcksCarryNoTerm)),
    Mutation(
        "truncate-always",
        "2",
        "every append cuts what follows it, committed entries too",
        Parts(node=TruncateWhatIsCommitted, journal=ForgivingJournal),
    ),
    Mutation(
        "truncate-until-fault",
        "2",
        "every append cuts what follows it; the journal still refuses to cut what is committed",
        Parts(node=TruncateAlways),
    ),
    Mutation(
        "answer-with-own-end",
        "2b",
        "a conflict is answered with the follower's own end, and the leader obeys",
        Parts(node=AnswerWithOwnEnd),
    ),
    Mutation("ack-before-fsync", "3", "acks and votes leave before the fsync", Parts(node=AckBeforeFsync)),
    Mutation("no-fsync", "3", "a flush returns without an fsync", Parts(storage=ForgetfulStorage)),
    Mutation("vote-not-stored", "3", "the vote is not written to disk", Parts(journal=VoteNotStored)),
    Mutation("term-not-restored", "3", "term and vote are not read at a start", Parts(node=TermNotRestored)),
    Mutation("no-check-quorum", "6", "a leader without a majority goes on", Parts(node=NoCheckQuorum)),
    Mutation("no-pre-vote", "7", "a node stands without asking first", Parts(node=NoPreVote)),
    Mutation("no-stickiness", "7", "followers of a live leader help to depose it", Parts(node=NoStickiness)),
    Mutation(
        "compact-what-followers-need",
        "11",
        "compaction looks at the own applied index only",
        Parts(node=CompactWhatFollowersNeed),
    ),
    Mutation(
        "compact-what-is-not-applied",
        "11",
        "compaction drops entries that the applier has not applied",
        Parts(node=CompactWhatIsNotApplied),
    ),
    Mutation("own-vote-twice", "", "a candidate counts its own vote twice", Parts(node=OwnVoteTwice)),
    Mutation("two-votes-a-term", "", "a vote is given again in the same term", Parts(node=TwoVotesATerm)),
    Mutation("vote-for-any-log", "", "votes go to candidates whose log is behind", Parts(node=VoteForAnyLog)),
    Mutation(
        "compare-logs-by-length",
        "",
        "logs are compared by length, not by last term",
        Parts(node=CompareLogsByLength),
    ),
    Mutation(
        "commit-old-term-by-count",
        "",
        "an entry of an earlier term is committed by counting copies",
        Parts(node=CommitOldTermByCount),
    ),
    Mutation(
        "leader-counts-unsynced",
        "",
        "the leader counts itself before its fsync",
        Parts(node=LeaderCountsUnsynced, journal=LazyJournal),
    ),
    Mutation(
        "follower-commits-unverified",
        "",
        "a follower commits entries that it has not compared with its leader's",
        Parts(node=FollowerCommitsUnverified),
    ),
    Mutation(
        "ack-unverified-tail",
        "",
        "a follower acknowledges entries beyond the last that it compared",
        Parts(node=AckUnverifiedTail),
    ),
    Mutation("small-quorum", "", "half of the nodes are taken for a majority", Parts(node=SmallQuorum)),
    Mutation(
        "skip-consistency-check",
        "",
        "the term before new entries is not compared",
        Parts(node=SkipConsistencyCheck),
    ),
    Mutation(
        "keep-conflicting-entries",
        "",
        "an entry at the same index is kept, whatever its term",
        Parts(node=FirstEntryOnly),
    ),
    Mutation("old-leader-obeyed", "", "messages of deposed leaders count", Parts(node=OldLeaderObeyed)),
    Mutation("reuse-read-index", "6", "a read index is given to later reads too", Parts(node=ReuseReadIndex)),
    Mutation("read-on-old-acks", "6", "acks from before a read prove its index", Parts(node=ReadOnOldAcks)),
    Mutation("read-without-quorum", "6", "a leader trusts itself", Parts(node=ReadWithoutQuorum)),
    Mutation(
        "read-before-own-commit", "", "a new leader serves reads at once", Parts(node=ReadBeforeOwnCommit)
    ),
    Mutation(
        "read-at-own-commit",
        "",
        "a linearizable read waits for the node's own commit index",
        Parts(wanted_index=read_at_own_commit),
    ),
    Mutation("ignore-token", "", "a session read does not wait", Parts(wanted_index=ignore_token)),
    Mutation("token-is-applied", "", "a read's token is the applied index", Parts(applier=TokenIsApplied)),
    Mutation(
        "token-from-marker",
        "",
        "after a restart amid an entry tokens leave its first part out",
        Parts(applier=TokenFromMarker),
    ),
    Mutation("apply-out-of-order", "", "an entry's proposals in reverse", Parts(applier=ApplyOutOfOrder)),
    Mutation(
        "apply-uncommitted", "", "entries are applied before their commit", Parts(raft=ApplyUncommitted)
    ),
    Mutation("mark-before-call", "10", "a step is marked before its call", Parts(applier=MarkBeforeCall)),
    Mutation(
        "skip-an-entry", "10", "applying goes on one entry late after a restart", Parts(applier=SkipAnEntry)
    ),
    Mutation(
        "no-intent", "", "a delete by filter is resolved again after a crash", Parts(load_machine=no_intent)
    ),
    Mutation(
        "forget-requests", "14", "request ids do not survive a restart", Parts(load_machine=forget_requests)
    ),
    Mutation("remember-few", "", "a node remembers three request ids", Parts(load_machine=remember_few)),
    Mutation(
        "answer-any-commit",
        "14",
        "a write is answered when its index is committed, whoever's entry it is",
        Parts(raft=AnswerAtCommitOfAnything),
    ),
)
MUTATIONS = {mutation.name: mutation for mutation in _ALL}


def parts_of(name: str | None) -> Parts:
    """The parts of a node with this bug; the real ones for None."""
    return Parts() if name is None else MUTATIONS[name].parts
